//! What settings are read from: a TOML or YAML file, and over it variables of the environment.

use std::collections::BTreeMap;
use std::path::Path;

use config::{Environment, File, Value};

/// A tree of values, and what is known of where they came from.
#[derive(Debug)]
pub struct Layers {
    /// The values.
    pub tree: Value,
    /// Variables by the keys that they set.
    pub names: BTreeMap<String, String>,
    /// That there is no such file.
    pub mistakes: Vec<String>,
}

impl Layers {
    /// Reads `file`, if one is given, and the variables that begin with `prefix`, which ends in `_`. `__` in a name stands between the
    /// parts of a nested key.
    ///
    /// # Errors
    /// Mistakes that leave nothing to look at.
    pub fn read(
        prefix: &str,
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<String>> {
        let (mut given, mut names, mut mistakes) = (config::Map::new(), BTreeMap::new(), Vec::new());
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix(prefix).filter(|key| !is_link(key)) {
                names.insert(key.to_lowercase().replace("__", "."), name.clone());
                given.insert(name, value);
            }
        }
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            // Without its own check a missing file would hide the mistakes of the environment.
            if path.is_file() {
                builder = builder.add_source(File::from(path));
            } else {
                mistakes.push(format!("{}: there is no such file", path.display()));
            }
        }
        let environment = Environment::with_prefix(prefix.trim_end_matches('_'))
            .prefix_separator("_")
            .separator("__")
            .source(Some(given));
        match builder.add_source(environment).build() {
            Ok(built) => Ok(Self { tree: built.cache, names, mistakes }),
            Err(error) => {
                mistakes.push(format!("the configuration file cannot be read: {error}"));
                Err(mistakes)
            }
        }
    }
}

/// Kubernetes puts `<SERVICE>_SERVICE_HOST`, `<SERVICE>_PORT` and kin into every pod. A service that is called after a program would
/// otherwise make it refuse to start over unknown keys. `rest` is what follows the service's name and `_`.
pub fn is_link(rest: &str) -> bool {
    rest == "PORT"
        || rest.starts_with("SERVICE_")
        || rest.strip_prefix("PORT_").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_known_by_the_keys_that_they_set() {
        let variables = [
            ("A_B_LOG__LEVEL", "debug"),
            ("A_B_SERVICE_HOST", "10.0.0.1"),
            ("A_B_PORT", "tcp://10.0.0.1:1"),
            ("A_B_PORT_1_TCP", "x"),
            ("OTHER", "x"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let Layers { tree, names, mistakes } =
            Layers::read("A_B_", Some(Path::new("/nowhere/x.toml")), variables).unwrap();
        assert_eq!(names, BTreeMap::from([("log.level".to_owned(), "A_B_LOG__LEVEL".to_owned())]));
        assert_eq!(tree.into_table().unwrap().len(), 1);
        assert_eq!(mistakes, ["/nowhere/x.toml: there is no such file"]);
    }
}
