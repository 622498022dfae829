//! The page of metrics beside what a program exposes: names, kinds, labels and their values. For the tests of both programs.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of one metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metric {
    /// `counter`, `gauge`, `histogram`, `info`.
    pub kind: String,
    /// Labels and their values; none of `version`.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// Metrics by the names that samples have; that of a histogram is without `_bucket` and the like.
pub type Metrics = BTreeMap<String, Metric>;

/// What OpenMetrics text holds.
pub fn exposed(text: &str) -> Metrics {
    let mut found = Metrics::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let name = match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            };
            found.insert(name, Metric { kind: kind.to_owned(), ..Metric::default() });
        } else if let Some((sample, rest)) = line.split_once('{')
            && let Some((labels, _)) = rest.split_once('}')
            && let Some(metric) = found.get_mut(sample)
        {
            for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
                let values = metric.labels.entry(label.to_owned()).or_default();
                // Another one in each release.
                if label != "version" {
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    found
}

/// What the rows of the page say of metrics whose names begin with `prefix`. Values follow their label in the cell that says what the
/// metric means: label `x`: `a`, `b` (in words).
pub fn listed(page: &str, prefix: &str) -> Metrics {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, meaning, _] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        let mut labels = BTreeMap::new();
        for part in meaning.split("label ").skip(1) {
            // Every other piece stands in marks of code.
            let mut words = part.split('`').skip(1).step_by(2).map(str::to_owned);
            if let Some(label) = words.next() {
                labels.insert(label, words.collect());
            }
        }
        Some((name, Metric { kind: kind.to_owned(), labels }))
    };
    page.lines().filter_map(row).filter(|(name, _)| name.starts_with(prefix)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_and_a_program_that_agree() {
        let text = "# HELP a_b x.\n# TYPE a_b counter\na_b_total{reason=\"x\"} 1\na_b_total{reason=\"y\"} 1\n# TYPE a_s histogram\n\
                    a_s_bucket{le=\"1\"} 0\na_s_sum 0\n# TYPE a_build info\na_build_info{version=\"9\"} 1\n# EOF\n";
        let page = "| Metric | Kind | Meaning |\n|---|---|---|\n| `a_b_total` | counter | B's; label `reason`: `x` (first), `y` |\n\
                    | `a_s` | histogram | S |\n| `c_s` | gauge | S |\n| `a_build_info` | info | label `version` |\n";
        assert_eq!(exposed(text), listed(page, "a_"));
        assert_ne!(exposed(text), listed(&page.replace("`y`", "`z`"), "a_"));
        assert_ne!(exposed(text), listed(&page.replace("| counter", "| gauge"), "a_"));
    }
}
