//! JSON that the kernel writes, read by a parser that knows nothing of it.

use proptest::prelude::*;
use quarry::kernel::json::{Object, Text};
use serde_json::{Value, json};

#[test]
fn members_of_every_kind_are_read_back() {
    let mut out = String::new();
    let mut object = Object::begin(&mut out).unwrap();
    object.text("text", "a \"quote\", a \\, a\ttab\r\nand \u{1b}[0m, \u{0}, é, 🦀").unwrap();
    object.number("number", u64::MAX).unwrap();
    object
        .array("list", |list| {
            list.text("one")?;
            list.text_if_any(|_| Ok(()))?;
            list.text_if_any(|out| out.write_str("two \"").and_then(|()| out.write_str("\n")))?;
            list.number(3)?;
            list.object(|inside| inside.number("four", 4))?;
            list.object(|_| Ok(()))
        })
        .unwrap();
    object.array("nothing", |_| Ok(())).unwrap();
    object.object("inside", |inside| inside.text("\"", "")).unwrap();
    object.end().unwrap();
    let expected = json!({
        "text": "a \"quote\", a \\, a\ttab\r\nand \u{1b}[0m, \u{0}, é, 🦀",
        "number": u64::MAX,
        "list": ["one", "two \"\n", 3, {"four": 4}, {}],
        "nothing": [],
        "inside": {"\"": ""},
    });
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected, "{out}");
}

#[test]
fn a_text_that_breaks_off_is_closed() {
    let mut out = String::new();
    let mut object = Object::begin(&mut out).unwrap();
    let broken = object.array("list", |list| {
        let cut = list.text_if_any(|out| out.write_str("half").and(Err(core::fmt::Error)));
        assert!(cut.is_err());
        list.text("next")
    });
    broken.and_then(|()| object.end()).unwrap();
    assert_eq!(out, r#"{"list":["half","next"]}"#);
}

proptest! {
    #[test]
    fn every_text_is_one_line_and_comes_back(text in any::<String>()) {
        let written = Text(&text).to_string();
        // U+0085, U+2028 and U+2029 end lines for some readers.
        let ends = |letter: char| letter.is_control() || "\u{2028}\u{2029}".contains(letter);
        prop_assert!(!written.contains(ends), "{}", written);
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }
}
