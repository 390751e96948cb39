//! A test as `ktest!` registered it (`src/kernel/ktest.rs` has the other side of this format).

use std::time::Duration;

use crate::machine::Spec;

/// Bytes of a record in `.ktests`: address of the text, its length, address of the function or 0.
pub(crate) const RECORD: usize = 24;

/// Seconds of the host's clock that a test may take unless it says otherwise.
const DEFAULT_TIMEOUT: u64 = 20;

/// One test.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    /// Its place in the registry, by which the kernel knows it.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) machine: Spec,
    pub(crate) timeout: Duration,
    /// Texts that the console must show, in this order; if empty, the test passes by returning.
    pub(crate) reports: Vec<String>,
    /// The status with which the machine must leave.
    pub(crate) exit: Option<i32>,
    pub(crate) ignored: Option<String>,
    /// Whether there is a function to run; otherwise the boot alone is the test.
    pub(crate) has_body: bool,
}

/// The text's address and length, and whether there is a function.
pub(crate) fn split(record: &[u8; RECORD]) -> ((u64, u64), bool) {
    let mut words = record.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let mut word = || words.next().unwrap_or_default();
    ((word(), word()), word() != 0)
}

impl Test {
    pub(crate) fn parse(number: usize, text: &str, has_body: bool) -> Result<Self, String> {
        let mut fields = text.split('\t');
        let path = fields.next().unwrap_or_default();
        let name = path.split_once("::").map_or(path, |(_crate, name)| name).to_owned();
        let mut test = Self {
            number,
            name,
            machine: Spec::default(),
            timeout: Duration::from_secs(DEFAULT_TIMEOUT),
            reports: Vec::new(),
            exit: None,
            ignored: None,
            has_body,
        };
        for field in fields {
            test.set(field).map_err(|why| format!("test {}: {why}", test.name))?;
        }
        if !has_body && test.reports.is_empty() && test.exit.is_none() {
            return Err(format!("test {}: a boot without a report or an exit status proves nothing", test.name));
        }
        Ok(test)
    }

    fn set(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("cannot read {field:?}"))?;
        match key {
            "machine" => self.machine = Spec::parse(value)?,
            "timeout" => {
                let seconds = value.parse().map_err(|_| format!("timeout {value:?} is not a number of seconds"))?;
                self.timeout = Duration::from_secs(seconds);
            }
            "report" if value.is_empty() => return Err("an empty report is always there".to_owned()),
            "report" => self.reports.push(value.to_owned()),
            "exit" => self.exit = Some(value.parse().map_err(|_| format!("exit status {value:?} is not a number"))?),
            "ignored" => self.ignored = Some(value.to_owned()),
            _ => return Err(format!("unknown field {key:?}")),
        }
        Ok(())
    }

    /// Whether the test is judged by the console and the exit status rather than by its own word.
    pub(crate) fn is_watched(&self) -> bool {
        !self.reports.is_empty() || self.exit.is_some() || !self.has_body
    }

    /// Whether it needs a machine of its own.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_watched() || self.machine.alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_loses_its_crate() {
        assert_eq!(Test::parse(0, "kernel::boot::maps_all", true).unwrap().name, "boot::maps_all");
    }

    #[test]
    fn fields_are_read() {
        let text = "kernel::a\tmachine=smp=2\ttimeout=7\treport=one\treport=two x\texit=1\tignored=slow";
        let test = Test::parse(3, text, true).unwrap();
        assert_eq!((test.number, test.machine.smp, test.timeout.as_secs(), test.exit), (3, 2, 7, Some(1)));
        assert_eq!(test.reports, ["one", "two x"]);
        assert_eq!(test.ignored.as_deref(), Some("slow"));
    }

    #[test]
    fn what_cannot_fail_is_refused() {
        assert!(Test::parse(0, "kernel::boot", false).is_err());
        assert!(Test::parse(0, "kernel::boot\treport=", false).is_err());
        assert!(Test::parse(0, "kernel::boot\texit=0", false).is_ok());
    }

    #[test]
    fn a_wrong_field_is_refused() {
        for wrong in ["k::a\tmachine=cores=3", "k::a\ttimeout=x", "k::a\texpect=x", "k::a\tignored"] {
            assert!(Test::parse(0, wrong, true).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn record_is_three_words() {
        let mut record = [0; RECORD];
        record[0] = 8;
        record[8] = 5;
        assert_eq!(split(&record), ((8, 5), false));
        record[16] = 1;
        assert!(split(&record).1);
    }
}
