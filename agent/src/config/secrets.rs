//! The settings of secrets: which files of the agent may be some, and how long opened ones are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_settings::{Form, Reader};

/// Secrets.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Secrets {
    /// Directories whose files tasks may use as secrets (`file:/path`); links do not lead out of them. Default:
    /// `/etc/lictor/secrets`, where it exists. Example: `/etc/lictor/secrets`.
    pub directories: Vec<PathBuf>,
    /// Most data keys of AWS KMS that are kept in memory.
    pub cache_entries: u32,
    /// How long a data key is kept in memory, from when it was unwrapped. What AWS no longer permits may go on for so long.
    pub cache_lifetime: Duration,
}

pub(super) fn read(reader: &mut Reader) -> Secrets {
    let directories = reader.optional_list("secrets.directories", MAX_DIRECTORIES, Form::AbsolutePath, |text| {
        let path = Path::new(text);
        match path.is_absolute() {
            true if path.parent().is_some() => Ok(path.to_owned()),
            true => Err("would permit every file there is".to_owned()),
            false => Err("is not an absolute path".to_owned()),
        }
    });
    let default = || Some(PathBuf::from(DEFAULT_DIRECTORY)).filter(|path| path.is_dir()).into_iter().collect();
    Secrets {
        directories: directories.unwrap_or_else(default),
        cache_entries: reader.number("secrets.cache_entries", DEFAULT_ENTRIES, 1, 100_000),
        cache_lifetime: reader.duration(
            "secrets.cache_lifetime",
            DEFAULT_LIFETIME,
            Duration::from_secs(1),
            Duration::from_secs(60 * 60),
        ),
    }
}

/// Whether a variable's name says that its value is a secret for tasks.
pub(crate) fn is_variable(name: &str) -> bool {
    let rest = name.strip_prefix(VARIABLE_PREFIX);
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

/// What such a name begins with.
pub(crate) const VARIABLE_PREFIX: &str = "LICTOR_SECRET_";
const DEFAULT_DIRECTORY: &str = "/etc/lictor/secrets";
const MAX_DIRECTORIES: usize = 100;
/// One for each secret that an agent of a large estate uses in a few minutes.
const DEFAULT_ENTRIES: u32 = 1000;
/// Long enough that a batch over a thousand hosts asks AWS once, short enough that a permission that was taken away ends soon.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(5 * 60);
