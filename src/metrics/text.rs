//! The text format of Prometheus, version 0.0.4.

use std::{
    fmt::{Display, Write},
    sync::atomic::Ordering,
};

use super::{Counter, Family, Gauge, Histogram};

pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text so far. Each metric is printed once, with all its samples behind its head.
#[derive(Default)]
pub struct Text(String);

/// The labels of a metric without labels.
const NONE: [(&str, &str); 0] = [];

impl Text {
    pub fn into_string(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, impl AsRef<str>)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in text.as_ref().chars() {
                match c {
                    '\\' | '"' => self.0.extend(['\\', c]),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help, [(NONE, value)]);
    }

    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], impl Display)>,
    ) {
        self.head(name, "gauge", help);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counters(name, help, [(NONE, value)]);
    }

    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, impl AsRef<str>); N], impl Display)>,
    ) {
        self.head(name, "counter", help);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    pub fn counter_family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        family: &Family<&'static str, Counter, N>,
    ) {
        self.head(name, "counter", help);
        for (value, counter) in family.all() {
            self.sample(name, &[(label, value)], counter);
        }
    }

    pub fn histograms<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, &'a str); N], &'a Histogram)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, histogram) in samples {
            self.buckets(name, &labels, histogram);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "what is shown needs no more digits")]
    fn buckets(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut total = 0;
        for (at, count) in histogram.counts.iter().enumerate().take(histogram.bounds.len() + 1) {
            total += count.load(Ordering::Relaxed);
            let bound = histogram.bounds.get(at);
            let bound = bound.map_or("+Inf".into(), |b| (*b as f64 / histogram.scale).to_string());
            let labels = [labels, &[("le", &bound)]].concat();
            self.sample(&format!("{name}_bucket"), &labels, total);
        }
        let sum = histogram.sum.load(Ordering::Relaxed) as f64 / histogram.scale;
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, total);
    }
}

impl Display for Gauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

impl Display for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_wants_them() {
        let mut text = Text::default();
        text.counters("a_total", "What is a.", [([("x", "q\"\\\n")], 1), ([("x", "")], 2)]);
        text.gauge("b", "What is b.", 0.5);
        let sizes = Histogram::sizes();
        sizes.observe(3);
        text.histograms("c", "What is c.", [([("s", "t")], &sizes)]);
        let text = text.into_string();
        let wanted = "# HELP a_total What is a.\n# TYPE a_total counter\n\
                      a_total{x=\"q\\\"\\\\\\n\"} 1\na_total{x=\"\"} 2\n\
                      # HELP b What is b.\n# TYPE b gauge\nb 0.5\n\
                      # HELP c What is c.\n# TYPE c histogram\n\
                      c_bucket{s=\"t\",le=\"1\"} 0\n";
        assert!(text.starts_with(wanted), "{text}");
        let end = "c_bucket{s=\"t\",le=\"+Inf\"} 1\nc_sum{s=\"t\"} 3\nc_count{s=\"t\"} 1\n";
        assert!(text.ends_with(end), "{text}");
        assert_eq!(text.matches("c_bucket").count(), 11);
    }
}
