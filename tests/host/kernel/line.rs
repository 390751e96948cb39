//! Lines as they are typed: what each byte does, and which lines are not run.

use quarry::kernel::line::{Completion, LINE, LineReader, Refusal, Step, WIDTH};
use std::fmt;

/// A terminal that knows printable characters, backspace and bell, and nothing else; one row behind the prompt, into which no
/// backspace goes.
#[derive(Default)]
struct Terminal {
    row: Vec<char>,
    column: usize,
    bells: usize,
}

impl fmt::Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match letter {
                '\x07' => self.bells += 1,
                '\x08' => {
                    assert!(self.column > 0, "no backspace into the prompt");
                    self.column -= 1;
                }
                ' '..='~' => {
                    self.row.resize(self.row.len().max(self.column + 1), ' ');
                    self.row.splice(self.column..=self.column, [letter]);
                    self.column += 1;
                    assert!(self.column <= WIDTH, "the row has ended");
                }
                other => panic!("{other:?} is not for every terminal"),
            }
        }
        Ok(())
    }
}

impl Terminal {
    fn row(&self) -> String {
        self.row.iter().collect::<String>().trim_end().to_owned()
    }
}

/// Types `keys`, sees that the terminal shows the line, and answers with the last step.
fn type_in(reader: &mut LineReader, terminal: &mut Terminal, keys: &[u8]) -> Step {
    let mut last = Step::Nothing;
    for key in keys {
        last = reader.feed(*key, terminal);
        if matches!(last, Step::Nothing | Step::Bell) && reader.text().len() < WIDTH {
            assert_eq!(terminal.row(), reader.text().trim_end());
        }
    }
    last
}

/// The line to run after `keys` from the start of a line.
fn line(keys: &[u8]) -> Result<String, Refusal> {
    let mut reader = LineReader::new();
    match type_in(&mut reader, &mut Terminal::default(), keys) {
        Step::Finished => Ok(reader.text().to_owned()),
        Step::Refused(refusal) => Err(refusal),
        other => panic!("the line does not end with {other:?}"),
    }
}

#[test]
fn text_is_a_line_when_it_ends() {
    assert_eq!(line(b"peek 0\r").as_deref(), Ok("peek 0"));
    assert_eq!(line(b"peek 0\n").as_deref(), Ok("peek 0"));
    assert_eq!(line(b"\r").as_deref(), Ok(""));
}

#[test]
fn a_line_feed_behind_a_carriage_return_ends_no_second_line() {
    let mut reader = LineReader::new();
    assert_eq!(type_in(&mut reader, &mut Terminal::default(), b"a\r"), Step::Finished);
    reader.clear();
    let mut next = Terminal::default();
    assert_eq!(type_in(&mut reader, &mut next, b"\n"), Step::Nothing);
    assert_eq!(type_in(&mut reader, &mut next, b"b\n"), Step::Finished);
    assert_eq!(reader.text(), "b");
    reader.clear();
    let last = type_in(&mut reader, &mut Terminal::default(), b"\n");
    assert_eq!(last, Step::Finished, "behind a line feed it is a line of its own");
}

#[test]
fn a_line_is_refused_from_the_first_character_that_has_no_room() {
    let full = [b'x'; LINE];
    assert_eq!(line(&[&full[..], b"\r"].concat()).map(|text| text.len()), Ok(LINE));
    for more in [1, 2, 1000] {
        let keys = [&full[..], &vec![b'y'; more], b"\r"].concat();
        assert_eq!(line(&keys), Err(Refusal::TooLong(more)));
        // Deleted characters are gone, the unseen part first.
        let keys = [&full[..], &vec![b'y'; more], &vec![0x7f; more + 1], b"z\r"].concat();
        assert_eq!(line(&keys).map(|text| text.ends_with("xz") && text.len() == LINE), Ok(true));
        let keys = [&full[..], &vec![b'y'; more], b"\x15ok\r"].concat();
        assert_eq!(line(&keys).as_deref(), Ok("ok"));
    }
}

#[test]
fn characters_that_are_no_ascii_are_not_left_out_of_a_line_that_is_run() {
    assert_eq!(line("päek 0\r".as_bytes()), Err(Refusal::NotAscii));
    assert_eq!(line(b"quit\xff\r"), Err(Refusal::NotAscii));
    assert_eq!(line("ä\x7fquit\r".as_bytes()).as_deref(), Ok("quit"), "all of it was taken back");
    assert_eq!(line("quitä\x7f\r".as_bytes()), Err(Refusal::NotAscii), "which one is taken back is not known");
    assert_eq!(line("quitä\x15help\r".as_bytes()).as_deref(), Ok("help"));
}

#[test]
fn keys_that_do_nothing_leave_nothing_in_the_line() {
    let keys: [&[u8]; 7] =
        [b"\x1b[1;5P", b"\x1b[5~", b"\x1bOP", b"\x1bx", b"\x1b\x1b[Z", b"\x1b[?25h", b"\x1bO\x1b[99999999~"];
    for key in keys {
        assert_eq!(line(&[b"qu", key, b"it\r"].concat()).as_deref(), Ok("quit"), "{key:?}");
    }
    assert_eq!(line(b"quit\x1b[\r").as_deref(), Ok("quit"), "the line ends although the key does not");
}

#[test]
fn the_cursor_goes_to_each_place_of_the_line() {
    for (keys, wanted) in [
        (&b"ac\x1b[Db\r"[..], "abc"),
        (b"ac\x02b\r", "abc"),
        (b"ac\x1bODb\r", "abc"),
        (b"ab\x1b[D\x1b[D\x1b[D\x1b[Cx\r", "axb"),
        (b"ab\x02\x02\x06x\r", "axb"),
        (b"bc\x01a\x05d\r", "abcd"),
        (b"bc\x1b[Ha\x1b[Fd\r", "abcd"),
        (b"bc\x1b[1~a\x1b[4~d\r", "abcd"),
        (b"a\x1b[Cb\r", "ab"),
    ] {
        assert_eq!(line(keys).as_deref(), Ok(wanted), "{keys:?}");
    }
}

#[test]
fn keys_delete_on_both_sides_of_the_cursor() {
    for (keys, wanted) in [
        (&b"peek  12  \x17\x1734\r"[..], "34"),
        (b"peek 12\x1734\r", "peek 34"),
        (b"peek 12 34\x02\x02\x17\r", "peek 34"),
        (b"\x7f\x08\x17\x15quit\r", "quit"),
        (b"nonsense quit\x02\x02\x02\x02\x15\r", "quit"),
        (b"quit nonsense\x01\x06\x06\x06\x06\x0b\r", "quit"),
        (b"quxit\x02\x02\x7f\r", "quit"),
        (b"quxit\x02\x02\x02\x04\r", "quit"),
        (b"quxit\x02\x02\x02\x1b[3~\r", "quit"),
        (b"quit\x04\x1b[3~\x0b\r", "quit"),
    ] {
        assert_eq!(line(keys).as_deref(), Ok(wanted), "{keys:?}");
    }
    let mut reader = LineReader::new();
    assert_eq!(type_in(&mut reader, &mut Terminal::default(), b"quit\x03"), Step::Cancelled);
    assert_eq!(reader.text(), "");
    let mut terminal = Terminal::default();
    assert_eq!(type_in(&mut reader, &mut terminal, b"x\x7f\x04"), Step::End);
    assert_eq!(type_in(&mut reader, &mut terminal, b"\r"), Step::Finished);
    assert_eq!(type_in(&mut reader, &mut Terminal::default(), "\u{e9}\x04".as_bytes()), Step::Bell, "not the end");
}

#[test]
fn earlier_lines_come_back_and_the_new_one_after_them() {
    let mut reader = LineReader::new();
    for text in [&b"one\r"[..], b"\r", b"two\r", b"two\r", b"three\r"] {
        assert_eq!(type_in(&mut reader, &mut Terminal::default(), text), Step::Finished);
        reader.clear();
    }
    let mut terminal = Terminal::default();
    for (keys, wanted, step) in [
        (&b"new\x1b[A"[..], "three", Step::Nothing),
        (b"\x10", "two", Step::Nothing),
        (b"\x1bOA", "one", Step::Nothing),
        (b"\x1b[A", "one", Step::Bell),
        (b"\x0e", "two", Step::Nothing),
        (b"\x1b[B\x1b[B", "new", Step::Nothing),
        (b"\x1b[B", "new", Step::Bell),
        (b"\x1b[A!", "three!", Step::Nothing),
    ] {
        assert_eq!(type_in(&mut reader, &mut terminal, keys), step, "{keys:?}");
        assert_eq!(reader.text(), wanted);
    }
    assert_eq!(type_in(&mut reader, &mut terminal, b"\r"), Step::Finished);
    reader.clear();
    type_in(&mut reader, &mut Terminal::default(), b"\x10\x10");
    assert_eq!(reader.text(), "three", "the line that was edited is kept as it was run");
    // The oldest make room for as many as there are.
    for number in 0..1000 {
        reader.clear();
        type_in(&mut reader, &mut Terminal::default(), format!("line {number:04}\r").as_bytes());
    }
    reader.clear();
    type_in(&mut reader, &mut Terminal::default(), &[0x10; 200]);
    assert_eq!(reader.text(), "line 0898", "102 lines of 10 bytes have room in 1024");
}

#[test]
fn a_line_that_is_too_long_does_not_come_back_shorter() {
    let mut reader = LineReader::new();
    type_in(&mut reader, &mut Terminal::default(), b"quit\r");
    reader.clear();
    let mut terminal = Terminal::default();
    type_in(&mut reader, &mut terminal, &[b'x'; LINE + 1]);
    assert_eq!(type_in(&mut reader, &mut terminal, b"\x1b[A"), Step::Bell);
    assert_eq!((type_in(&mut reader, &mut terminal, b"\x1b[B"), reader.text().len()), (Step::Bell, LINE));
    assert_eq!(type_in(&mut reader, &mut terminal, b"\r"), Step::Refused(Refusal::TooLong(1)));
    reader.clear();
    type_in(&mut reader, &mut Terminal::default(), b"\x1b[A");
    assert_eq!(reader.text(), "quit", "what was refused is no line of the history");
}

#[test]
fn pasted_text_is_run_by_enter_alone() {
    for (keys, wanted) in [
        (&b"\x1b[200~peek 0\x1b[201~\r"[..], "peek 0"),
        (b"\x1b[200~peek\t0\r\npeek 1\n\npeek 2\r\x1b[201~\r", "peek 0; peek 1; peek 2; "),
        (b"\x1b[200~\r\nquit\x01\x15\x04\x7f\x1b[A\x1b[201~!\r", "quit!"),
        (b"peek \x1b[200~0;\r\x1b[201~\r", "peek 0;"),
    ] {
        assert_eq!(line(keys).as_deref(), Ok(wanted), "{keys:?}");
    }
    let long = [b"\x1b[200~", &[b'x'; LINE + 7][..], b"\x1b[201~\r"].concat();
    assert_eq!(line(&long), Err(Refusal::TooLong(7)));
    assert_eq!(line("\x1b[200~qu\u{e9}it\x1b[201~\r".as_bytes()), Err(Refusal::NotAscii));
    let mut reader = LineReader::new();
    let last = type_in(&mut reader, &mut Terminal::default(), b"\x1b[200~quit\r\x03");
    assert_eq!((last, reader.text()), (Step::Cancelled, ""), "out of a paste whose end was lost");
    assert_eq!(type_in(&mut reader, &mut Terminal::default(), b"cpu\r"), Step::Finished);
}

#[test]
fn a_long_line_is_seen_through_a_window_around_the_cursor() {
    let text: String = ('!'..='~').chain('!'..='~').take(LINE).collect();
    let mut reader = LineReader::new();
    let mut terminal = Terminal::default();
    type_in(&mut reader, &mut terminal, text.as_bytes());
    assert!(terminal.row().starts_with('<') && terminal.row().ends_with(&text[LINE - 20..]), "{:?}", terminal.row());
    for back in 1..=LINE {
        type_in(&mut reader, &mut terminal, b"\x02");
        assert_eq!(terminal.row.get(terminal.column), text.chars().nth(LINE - back).as_ref(), "under the cursor");
    }
    assert_eq!(terminal.row(), text[..WIDTH], "its start");
    for at in 1..LINE {
        type_in(&mut reader, &mut terminal, b"\x06");
        let under = terminal.row.get(terminal.column).copied();
        assert!(under == text.chars().nth(at) || terminal.column == 0, "{at}");
    }
    assert_eq!(type_in(&mut reader, &mut terminal, b"\x06\x15ok"), Step::Nothing);
    assert_eq!(terminal.row(), "ok");
}

#[test]
fn words_complete_as_far_as_they_agree() {
    let completed = |begun: &str, words: &[&str]| {
        let mut found = Completion::new(begun);
        for word in words {
            assert_eq!(found.offer(word), word.starts_with(begun));
        }
        (found.count(), found.rest().to_owned(), found.is_whole())
    };
    assert_eq!(completed("pe", &["peek", "page", "help"]), (1, "ek".to_owned(), true));
    assert_eq!(completed("p", &["peek", "page", "help"]), (2, String::new(), false));
    assert_eq!(completed("kmalloc-1", &["kmalloc-128", "kmalloc-1k", "kmalloc-16"]), (3, String::new(), false));
    assert_eq!(completed("k", &["kmalloc-128", "kmalloc-1k"]), (2, "malloc-1".to_owned(), false));
    assert_eq!(completed("", &[]), (0, String::new(), false));
    assert_eq!(completed("ph", &["phys:"]), (1, "ys:".to_owned(), false), "something follows at once");
    let mut long = Completion::new("");
    assert!(!long.offer(&"x".repeat(LINE + 1)), "it would have no room");
}

#[test]
fn the_word_at_the_cursor_is_that_of_its_own_command() {
    for (keys, before, word) in [
        (&b"pe"[..], "", "pe"),
        (b"help pe", "help ", "pe"),
        (b"cpu; slab", " ", "slab"),
        (b"cpu;slab kmalloc-1", "slab ", "kmalloc-1"),
        (b"kmalloc 64 ATOMIC|ZE", "kmalloc 64 ATOMIC|", "ZE"),
        (b"help page\x02\x02", "help ", "pa"),
        (b"", "", ""),
    ] {
        let mut reader = LineReader::new();
        type_in(&mut reader, &mut Terminal::default(), keys);
        assert_eq!(reader.word(), (before, word), "{keys:?}");
    }
}

#[test]
fn inserted_text_stands_where_the_cursor_is() {
    let (mut reader, mut terminal) = (LineReader::new(), Terminal::default());
    assert_eq!(type_in(&mut reader, &mut terminal, b"pe 0\x02\x02\t"), Step::Complete);
    reader.insert("ek", &mut terminal);
    assert_eq!((reader.text(), terminal.row().as_str(), terminal.column), ("peek 0", "peek 0", 4));
    // The screen was cleared, and there is a prompt again.
    let mut cleared = Terminal::default();
    reader.show_again(&mut cleared);
    assert_eq!((cleared.row().as_str(), cleared.column), ("peek 0", 4));
    reader.insert(&"x".repeat(LINE), &mut cleared);
    assert_eq!(
        reader.feed(b'\r', &mut cleared),
        Step::Refused(Refusal::TooLong(6)),
        "no more than a line has room for"
    );
}

#[test]
fn no_bytes_break_the_reader() {
    let mut random = crate::random::Random(0x11ae);
    let mut reader = LineReader::new();
    let mut terminal = Terminal::default();
    let keys = b"\r\n\x01\x02\x03\x04\x05\x06\x08\x0b\x0c\x0e\x10\x7f\x15\x17\x1b[O~; aZABCDHF12030~\t\x80\xff";
    for _ in 0..200_000 {
        let key = usize::try_from(random.below(keys.len() as u64)).unwrap();
        let step = type_in(&mut reader, &mut terminal, &keys[key..=key]);
        assert!(reader.text().len() <= LINE && reader.text().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        match step {
            Step::Finished | Step::Refused(_) | Step::Cancelled => {
                reader.clear();
                terminal = Terminal::default();
            }
            _ => {}
        }
    }
}
