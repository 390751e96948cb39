//! One row of the results, as the image prints it and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A figure as the image printed it: digits, perhaps a point and two more.
pub(crate) type Number = String;

/// Result of a row.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) n: u64,
    pub(crate) min: Number,
    pub(crate) median: Number,
    pub(crate) mean: Number,
    pub(crate) p99: Number,
    pub(crate) max: Number,
    /// Rounds of the batch and its mean; none where there is no batch.
    pub(crate) batch: Option<(u64, Number)>,
    pub(crate) warm_up: u64,
    /// Units of what the row counts in one operation.
    pub(crate) units: u64,
    pub(crate) headline: Headline,
    /// Instructions before the first operation.
    pub(crate) setup: u64,
}

/// Which of its figures a row is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headline {
    Batch,
    Mean,
    Median,
    P99,
    Max,
}

impl Figures {
    pub(crate) fn parse(fields: &[&str]) -> Option<Self> {
        let [headline, n, units, min, median, mean, p99, max, batch, batch_mean, warm_up, setup] = fields else {
            return None;
        };
        let number = |text: &str| text.parse::<f64>().ok().map(|_| text.to_owned());
        Some(Self {
            n: n.parse().ok()?,
            min: number(min)?,
            median: number(median)?,
            mean: number(mean)?,
            p99: number(p99)?,
            max: number(max)?,
            batch: match *batch {
                "0" => None,
                _ => Some((batch.parse().ok()?, number(batch_mean)?)),
            },
            warm_up: warm_up.parse().ok()?,
            units: units.parse().ok()?,
            headline: match *headline {
                "batch" => Headline::Batch,
                "median" => Headline::Median,
                "p99" => Headline::P99,
                "max" => Headline::Max,
                _ => return None,
            },
            setup: setup.parse().ok()?,
        })
    }

    /// Figures of a few values that were not sampled in the image.
    pub(crate) fn of(mut values: Vec<f64>, digits: usize) -> Self {
        values.sort_by(f64::total_cmp);
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let at = |rank: usize| values.get(rank.min(values.len().saturating_sub(1))).copied().unwrap_or_default();
        let shown = |value: f64| format!("{value:.digits$}");
        Self {
            n: values.len() as u64,
            min: shown(at(0)),
            median: shown(at(values.len() / 2)),
            mean: shown(mean),
            p99: shown(at(usize::MAX)),
            max: shown(at(usize::MAX)),
            batch: None,
            warm_up: 0,
            units: 1,
            headline: Headline::Mean,
            setup: 0,
        }
    }

    /// The figure that is compared: as a rule the mean of the batch.
    pub(crate) fn headline(&self) -> &str {
        match (self.headline, &self.batch) {
            (Headline::Batch, Some((_, mean))) => mean,
            (Headline::Batch | Headline::Mean, _) => &self.mean,
            (Headline::Median, _) => &self.median,
            (Headline::P99, _) => &self.p99,
            (Headline::Max, _) => &self.max,
        }
    }

    /// The same as a number.
    pub(crate) fn value(&self) -> f64 {
        self.headline().parse().unwrap_or(f64::NAN)
    }

    /// The mean of the batch, where there is one; else the figure that is compared.
    pub(crate) fn mean_of_batch(&self) -> &str {
        self.batch.as_ref().map_or_else(|| self.headline(), |(_, mean)| mean)
    }

    /// Instructions of the whole operation; none where the samples are of operations that differ.
    pub(crate) fn whole(&self) -> Option<f64> {
        matches!(self.headline, Headline::Batch | Headline::Median).then(|| self.value() * self.units as f64)
    }
}

/// Instructions that one operation executed, by kind, as the emulator logged them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Executed {
    pub(crate) instructions: u64,
    pub(crate) dsb: u64,
    pub(crate) isb: u64,
    /// Load-exclusives: each stands for one atomic operation without FEAT_LSE.
    pub(crate) exclusives: u64,
    /// Atomic instructions of FEAT_LSE.
    pub(crate) atomics: u64,
    pub(crate) tlbi: BTreeMap<String, u64>,
    pub(crate) dc: BTreeMap<String, u64>,
    /// Times that the CPU left a process: each is a call, or an instruction that faulted and did not count.
    pub(crate) left: u64,
    /// Instructions by the address of the function that they are in, the overhead included.
    pub(crate) by_function: BTreeMap<u64, u64>,
}

impl Executed {
    /// Whether a TLBI without an address is among them.
    pub(crate) fn invalidates_everything(&self) -> bool {
        self.tlbi.keys().any(|kind| kind.starts_with("vmalle1") || kind.starts_with("aside1"))
    }
}

/// A row of the results.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// By which the image knows it; none for those that come from other boots.
    pub(crate) number: Option<usize>,
    pub(crate) name: String,
    pub(crate) by: String,
    pub(crate) version: String,
    pub(crate) unit: String,
    pub(crate) figures: Figures,
    pub(crate) executed: Option<Executed>,
}

impl Row {
    /// The row as one line of JSON. Names hold no character that JSON would want escaped.
    pub(crate) fn json(&self, cpu: &str) -> String {
        let Self { name, by, version, unit, figures, .. } = self;
        let Figures { n, min, median, mean, p99, max, warm_up, units, .. } = figures;
        let mut json = format!(
            "{{\"name\":\"{name}\",\"impl\":\"{by}\",\"version\":\"{version}\",\"cpu\":\"{cpu}\",\"unit\":\"{unit}\",\
             \"n\":{n},\"min\":{min},\"median\":{median},\"mean\":{mean},\"p99\":{p99},\"max\":{max},\"units\":{units},\
             \"warm_up\":{warm_up}"
        );
        if let Some((rounds, mean)) = &figures.batch {
            let _ = write!(json, ",\"batch\":{rounds},\"batch_mean\":{mean}");
        }
        if let Some(executed) = &self.executed {
            let Executed { instructions, dsb, isb, exclusives, atomics, tlbi, dc, .. } = executed;
            let _ = write!(
                json,
                ",\"executed\":{{\"instructions\":{instructions},\"dsb\":{dsb},\"isb\":{isb},\
                 \"exclusives\":{exclusives},\"atomics\":{atomics},\"tlbi\":{},\"dc\":{}}}",
                object(tlbi),
                object(dc)
            );
        }
        json + "}"
    }
}

fn object(counts: &BTreeMap<String, u64>) -> String {
    let fields: Vec<String> = counts.iter().map(|(kind, count)| format!("\"{kind}\":{count}")).collect();
    format!("{{{}}}", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 12] =
        ["batch", "2000", "1", "138", "138", "138.5", "140", "141", "10000", "138.01", "66", "9"];

    fn row() -> Row {
        Row {
            number: Some(3),
            name: "map_unmap/1".into(),
            by: "quarry".into(),
            version: "0.1.0".into(),
            unit: "instructions".into(),
            figures: Figures::parse(&FIELDS).unwrap(),
            executed: None,
        }
    }

    #[test]
    fn the_batch_is_the_headline() {
        assert_eq!(row().figures.headline(), "138.01");
        assert_eq!(Figures::of(vec![3.0, 1.0], 1).headline(), "2.0");
    }

    #[test]
    fn a_row_becomes_one_line_of_json() {
        let mut row = row();
        row.executed = Some(Executed {
            instructions: 140,
            dsb: 2,
            tlbi: [("vaale1is".to_owned(), 1)].into(),
            ..Executed::default()
        });
        assert_eq!(
            row.json("max"),
            "{\"name\":\"map_unmap/1\",\"impl\":\"quarry\",\"version\":\"0.1.0\",\"cpu\":\"max\",\
             \"unit\":\"instructions\",\"n\":2000,\"min\":138,\"median\":138,\"mean\":138.5,\"p99\":140,\"max\":141,\
             \"units\":1,\"warm_up\":66,\"batch\":10000,\"batch_mean\":138.01,\"executed\":{\"instructions\":140,\
             \"dsb\":2,\"isb\":0,\"exclusives\":0,\"atomics\":0,\"tlbi\":{\"vaale1is\":1},\"dc\":{}}}"
        );
    }

    #[test]
    fn a_row_is_judged_by_the_figure_that_it_names() {
        let by = |headline| {
            let mut fields = FIELDS;
            fields[0] = headline;
            Figures::parse(&fields).map(|figures| (figures.headline().to_owned(), figures.whole().is_some()))
        };
        assert_eq!(by("max"), Some(("141".to_owned(), false)));
        assert_eq!(by("p99"), Some(("140".to_owned(), false)));
        assert_eq!(by("batch"), Some(("138.01".to_owned(), true)));
        assert_eq!(by("median"), Some(("138".to_owned(), true)));
        assert_eq!(by("least"), None);
    }

    #[test]
    fn a_field_that_is_no_number_is_refused() {
        let mut fields = FIELDS;
        fields[6] = "x";
        assert!(Figures::parse(&fields).is_none());
        assert!(Figures::parse(&FIELDS[1..]).is_none());
    }
}
