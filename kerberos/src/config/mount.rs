//! Whether a file is itself the place of a mount. A Kubernetes volume that is mounted with `subPath`, and a single file that is
//! bound into a container, keep the content of their first day: an update replaces the file beside the mount, not under it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The mounts of this process, as the kernel lists them.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Those of `paths` that are files and places of mounts.
pub(super) fn mounted_files<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    // Where there is no /proc there is no Kubernetes either.
    let mounts = fs::read(MOUNTS).unwrap_or_default();
    paths
        .filter(|path| fs::canonicalize(path).is_ok_and(|real| real.is_file() && is_mount(&mounts, &real)))
        .map(Path::to_path_buf)
        .collect()
}

/// Whether the fifth field of a line is `path`.
fn is_mount(mounts: &[u8], path: &Path) -> bool {
    mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|place| unescaped(place).as_os_str() == path.as_os_str())
}

/// The kernel writes blanks, tabs, line feeds and backslashes as three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .first_chunk::<3>()
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                out.push(u8::try_from(value).unwrap_or(b'?'));
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a pod shows it: a directory of a ConfigMap, and one of its files by subPath.
    const POD: &[u8] = b"\
1203 1190 8:1 /var/lib/kubelet/pods/1f/volumes/kubernetes.io~configmap/krb5 /etc/krb5 ro,relatime - ext4 /dev/sda1 rw
1204 1190 8:1 /var/lib/kubelet/pods/1f/volume-subpaths/krb5/agent/0 /etc/krb5.conf ro,relatime - ext4 /dev/sda1 rw
1205 1190 8:1 /x /etc/with\\040blank.conf ro,relatime - ext4 /dev/sda1 rw
";

    #[test]
    fn a_file_that_is_a_mount_is_told_from_one_in_a_mount() {
        assert!(is_mount(POD, Path::new("/etc/krb5.conf")));
        assert!(is_mount(POD, Path::new("/etc/with blank.conf")));
        assert!(!is_mount(POD, Path::new("/etc/krb5/krb5.conf")));
        assert!(!is_mount(POD, Path::new("/etc/krb5.con")));
    }

    #[test]
    fn an_ordinary_file_is_no_mount() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(mounted_files([file.path(), Path::new("/proc/self")].into_iter()), Vec::<PathBuf>::new());
    }
}
