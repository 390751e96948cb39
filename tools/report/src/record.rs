//! The kernel's lines, as values.

use serde_json::Value;

/// Everything that one `record` printed.
pub struct Record {
    /// The lines, as they came.
    pub lines: Vec<Value>,
}

impl Record {
    /// Reads the lines of a console; the last `record` has to be whole.
    pub fn read(console: &str) -> Result<Self, String> {
        let mut lines: Vec<Value> = Vec::new();
        for line in console.lines().filter(|line| line.starts_with("{\"record\":")) {
            let value: Value = serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
            if value["record"] == "machine" {
                lines.clear();
            }
            lines.push(value);
        }
        match lines.last() {
            Some(last) if last["record"] == "end" => Ok(Self { lines }),
            Some(_) => Err("the record breaks off: no line \"end\"".to_owned()),
            None => Err("the console shows no record: type `record` at the prompt".to_owned()),
        }
    }

    /// The lines of one kind.
    pub fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["record"] == kind)
    }

    /// The free lists of a zone, by round.
    pub fn of_zone(&self, zone: &str) -> Vec<&Value> {
        self.of("free").filter(|line| text(line, "zone") == zone).collect()
    }

    /// A number of the line about the machine.
    pub fn machine(&self, name: &str) -> u64 {
        self.of("machine").next().map_or(0, |line| number(line, name))
    }
}

/// A number, 0 if there is none.
pub fn number(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or(0)
}

/// Free pages by a line of free lists.
pub fn free_pages(line: &Value) -> u64 {
    numbers(line, "blocks").iter().enumerate().map(|(order, count)| count << order).sum()
}

/// A text, empty if there is none.
pub fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or("")
}

/// An array of numbers.
pub fn numbers(line: &Value, name: &str) -> Vec<u64> {
    line[name].as_array().map_or(Vec::new(), |list| list.iter().filter_map(Value::as_u64).collect())
}
