//! Lines as they are typed: what each byte does, and which lines are not run.

use quarry::kernel::line::{LINE, LineReader, Refusal, Step};

/// Types `keys`, and answers with the line as the terminal shows it and with the last step.
fn type_in(reader: &mut LineReader, keys: &[u8]) -> (String, Step) {
    let (mut screen, mut last) = (String::new(), Step::Nothing);
    for key in keys {
        last = reader.feed(*key);
        match last {
            Step::Echo(byte) => screen.push(byte.into()),
            Step::Erase(count) => screen.truncate(screen.len() - count),
            _ => {}
        }
        assert!(screen.ends_with(reader.text()), "{screen:?} shows {:?}", reader.text());
    }
    (screen, last)
}

/// The line to run after `keys` from the start of a line.
fn line(keys: &[u8]) -> Result<String, Refusal> {
    let mut reader = LineReader::new();
    match type_in(&mut reader, keys).1 {
        Step::Complete => Ok(reader.text().to_owned()),
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
    assert_eq!(type_in(&mut reader, b"a\r").1, Step::Complete);
    reader.clear();
    assert_eq!(reader.feed(b'\n'), Step::Nothing);
    assert_eq!(type_in(&mut reader, b"b\n").1, Step::Complete);
    assert_eq!(reader.text(), "b");
    reader.clear();
    assert_eq!(reader.feed(b'\n'), Step::Complete, "behind a line feed it is a line of its own");
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
fn special_keys_leave_nothing_in_the_line() {
    let keys: [&[u8]; 9] = [
        b"\x1b[A",
        b"\x1b[1;5D",
        b"\x1b[3~",
        b"\x1bOP",
        b"\x1bx",
        b"\x1b\x1b[B",
        b"\x1b[?25h",
        b"\x1bO\x1b[C",
        b"\x1b[200~",
    ];
    for key in keys {
        assert_eq!(line(&[b"qu", key, b"it\r"].concat()).as_deref(), Ok("quit"), "{key:?}");
    }
    assert_eq!(line(b"quit\x1b[\r").as_deref(), Ok("quit"), "the line ends although the key does not");
}

#[test]
fn control_keys_edit() {
    assert_eq!(line(b"peek  12  \x17\x1734\r").as_deref(), Ok("34"));
    assert_eq!(line(b"peek 12\x1734\r").as_deref(), Ok("peek 34"));
    assert_eq!(line(b"\x7f\x08\x17\x15quit\r").as_deref(), Ok("quit"));
    assert_eq!(line(b"qu\x00\x01\x02it\r").as_deref(), Ok("quit"));
    assert_eq!(line(b"peek\t0\r").as_deref(), Ok("peek 0"));
    let mut reader = LineReader::new();
    assert_eq!(type_in(&mut reader, b"quit\x03").1, Step::Cancelled);
    assert_eq!(reader.text(), "");
    assert_eq!(reader.feed(b'\r'), Step::Complete);
}

#[test]
fn no_bytes_break_the_reader() {
    let mut random = crate::random::Random(0x11ae);
    let mut reader = LineReader::new();
    let keys = b"\r\n\x03\x08\x7f\x15\x17\x1b[O~; aZ\t\x80\xff";
    for _ in 0..200_000 {
        let key = usize::try_from(random.below(keys.len() as u64)).unwrap();
        let step = reader.feed(keys[key]);
        assert!(reader.text().len() <= LINE && reader.text().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        if matches!(step, Step::Complete | Step::Refused(_)) {
            reader.clear();
        }
    }
}
