//! Collects times and prints a table of their medians and 99th percentiles.

use std::{fmt, time::Duration};

#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The nearest-rank percentile.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<(&'static str, Samples)>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self {
            title,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &'static str, samples: Samples) {
        self.rows.push((name, samples));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.title;
        writeln!(
            formatter,
            "{title:<52} {:>12} {:>12} {:>8}",
            "median", "p99", "samples"
        )?;
        for (name, samples) in &self.rows {
            let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
            writeln!(
                formatter,
                "{name:<52} {:>9.3} ms {:>9.3} ms {:>8}",
                milliseconds(samples.median()),
                milliseconds(samples.percentile(99)),
                samples.0.len()
            )?;
        }
        Ok(())
    }
}
