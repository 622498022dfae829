//! What the kernel tells of a control group, version 2 or 1. What is missing or makes no sense is not known.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct ControlGroup {
    root: PathBuf,
    /// `/proc/self/cgroup`, or what a test has in its place.
    membership: String,
}

/// One look at the counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    /// Bytes that the kernel cannot take back when it needs them.
    pub(super) memory_used: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) cpu_used: Option<Duration>,
    /// In processors.
    pub(super) cpu_limit: Option<f64>,
    /// Share of the last ten seconds in which everything waited for memory, percent.
    pub(super) stall: Option<f64>,
}

impl ControlGroup {
    /// The group of this process below `root`, `/sys/fs/cgroup` as a rule.
    pub(super) fn of_this_process(root: PathBuf) -> Self {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { root, membership }
    }

    pub(super) fn read(&self) -> Reading {
        if self.root.join("cgroup.controllers").exists() { self.version_2() } else { self.version_1() }
    }

    fn version_2(&self) -> Reading {
        let group = self.directory(&self.root, |controllers| controllers.is_empty());
        let [max, high] = ["memory.max", "memory.high"].map(|name| number(&group.join(name)));
        let cpu_max = text(&group.join("cpu.max"));
        let mut words = cpu_max.split_whitespace().map(str::parse::<f64>);
        Reading {
            memory_used: used(number(&group.join("memory.current")), &group.join("memory.stat"), ""),
            memory_limit: max.into_iter().chain(high).min(),
            cpu_used: field(&group.join("cpu.stat"), "usage_usec").map(Duration::from_micros),
            cpu_limit: quota(words.next().and_then(Result::ok), words.next().and_then(Result::ok)),
            stall: stall(&text(&group.join("memory.pressure"))),
        }
    }

    fn version_1(&self) -> Reading {
        let group = |controller: &str| {
            let mounted = self.root.join(controller);
            self.directory(&mounted, |controllers| controllers.split(',').any(|name| name == controller))
        };
        let (memory, cpu, cpuacct) = (group("memory"), group("cpu"), group("cpuacct"));
        let float = |path: PathBuf| text(&path).trim().parse::<f64>().ok();
        Reading {
            memory_used: used(number(&memory.join("memory.usage_in_bytes")), &memory.join("memory.stat"), "total_"),
            memory_limit: number(&memory.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT),
            cpu_used: number(&cpuacct.join("cpuacct.usage")).map(Duration::from_nanos),
            cpu_limit: quota(float(cpu.join("cpu.cfs_quota_us")), float(cpu.join("cpu.cfs_period_us"))),
            stall: None,
        }
    }

    /// The group's directory; the root itself where a container sees its own group there.
    fn directory(&self, root: &Path, is_ours: impl Fn(&str) -> bool) -> PathBuf {
        let path = self.membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            is_ours(controllers).then_some(path)
        });
        let inner =
            path.map(|path| path.trim_start_matches('/')).filter(|path| !path.is_empty() && !path.contains(".."));
        inner.map(|path| root.join(path)).filter(|path| path.is_dir()).unwrap_or_else(|| root.to_owned())
    }
}

/// What is used, less what is cached of files: the kernel takes that back before it runs out.
fn used(all: Option<u64>, statistics: &Path, prefix: &str) -> Option<u64> {
    let cached =
        ["inactive_file", "active_file"].map(|name| field(statistics, &format!("{prefix}{name}")).unwrap_or(0));
    Some(cached.into_iter().fold(all?, u64::saturating_sub))
}

fn quota(quota: Option<f64>, period: Option<f64>) -> Option<f64> {
    match (quota?, period?) {
        (quota, period) if quota > 0.0 && period > 0.0 => Some(quota / period),
        _ => None,
    }
}

fn stall(pressure: &str) -> Option<f64> {
    let full = pressure.lines().find_map(|line| line.strip_prefix("full "))?;
    let share = full.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse::<f64>().ok()?;
    (0.0..=100.0).contains(&share).then_some(share)
}

fn number(path: &Path) -> Option<u64> {
    text(path).trim().parse().ok()
}

/// The number behind `name` in a file of lines.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = text(path);
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Version 1 has no word for "none", but a number as large as the kernel's pages allow.
const NO_LIMIT: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    fn group(membership: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Reading) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let reading = ControlGroup { root: root.path().to_owned(), membership: membership.to_owned() }.read();
        (root, reading)
    }

    const V2: [(&str, &str); 6] = [
        ("cgroup.controllers", "cpu memory\n"),
        ("memory.current", "1000\n"),
        ("memory.stat", "anon 1\ninactive_file 300\nactive_file 5\n"),
        ("memory.max", "4000\n"),
        ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ("cpu.max", "150000 100000\n"),
    ];

    #[test]
    fn version_2_as_a_container_sees_it() {
        let pressure =
            "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.50 avg60=0.00 avg300=0.00 total=1\n";
        let more = [("memory.high", "max\n"), ("memory.pressure", pressure)];
        let (_root, reading) = group("0::/\n", &[&V2[..], &more].concat());
        let expected = Reading {
            memory_used: Some(695),
            memory_limit: Some(4000),
            cpu_used: Some(Duration::from_millis(2500)),
            cpu_limit: Some(1.5),
            stall: Some(1.5),
        };
        assert_eq!(reading, expected);
        let (_root, reading) = group("0::/not/here\n", &[&V2[..], &[("memory.high", "3000\n")]].concat());
        assert_eq!(reading, Reading { memory_limit: Some(3000), stall: None, ..expected });
    }

    #[test]
    fn version_2_below_the_root() {
        let files =
            [("cgroup.controllers", ""), ("a/b/memory.current", "5"), ("a/b/memory.max", "max"), ("memory.max", "7")];
        let (_root, reading) = group("1:memory:/x\n0::/a/b\n", &files);
        assert_eq!(reading, Reading { memory_used: Some(5), ..Reading::default() });
    }

    #[test]
    fn version_1() {
        let files = [
            ("memory/g/memory.usage_in_bytes", "1000\n"),
            ("memory/g/memory.limit_in_bytes", "2000\n"),
            ("memory/g/memory.stat", "cache 9\ntotal_inactive_file 100\n"),
            ("cpuacct/cpuacct.usage", "3000000000\n"),
            ("cpu/cpu.cfs_quota_us", "50000\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        let membership = "4:memory:/g\n2:cpuacct,cpu:/g\n1:name=systemd:/\n";
        let (_root, reading) = group(membership, &files);
        let expected = Reading {
            memory_used: Some(900),
            memory_limit: Some(2000),
            cpu_used: Some(Duration::from_secs(3)),
            cpu_limit: Some(0.5),
            stall: None,
        };
        assert_eq!(reading, expected);
        let unlimited = [("memory/memory.limit_in_bytes", "9223372036854771712\n"), ("cpu/cpu.cfs_quota_us", "-1\n")];
        assert_eq!(group("", &unlimited).1, Reading::default());
    }

    #[test]
    fn nonsense_and_nothing_are_not_known() {
        assert_eq!(group("", &[]).1, Reading::default());
        for nonsense in ["", "abc", "-5", "99999999999999999999999", "max max", "\u{0}", "0 0"] {
            let files: Vec<(&str, &str)> =
                V2.iter().map(|(name, _)| (*name, nonsense)).chain([("memory.pressure", nonsense)]).collect();
            assert_eq!(group("0::/\n", &files).1, Reading::default(), "{nonsense:?}");
        }
        assert_eq!(group("0::/../../etc\n", &V2).1.memory_limit, Some(4000), "no way out of the root");
    }
}
