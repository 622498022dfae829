//! Inventories on disk: which files Ansible would read, in which order. The one place in this crate that reads files.
//!
//! Never runs a program, never follows more than a bounded number of files and directories, and reads nothing but what stands
//! below the sources that were named and in `group_vars` and `host_vars` beside them.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Format, Inventory, Place, Places, Resolved, Vars};
use crate::{MAX_TEXT_BYTES, Mistake};

/// Reads sources: files, directories, `-` for standard input, or hosts with commas between them.
pub fn load(sources: &[String], playbook: Option<&Path>) -> Result<(Resolved, Places), Mistake> {
    let mut disk = Disk::default();
    let mut inventory = Inventory::default();
    let mut beside = Vec::new();
    for source in sources {
        let path = Path::new(source);
        if source == "-" {
            let text = disk.bounded(io::stdin().lock()).map_err(|error| unreadable(path, &error))?;
            inventory.add_source(&"standard input".into(), &text, Format::Either)?;
        } else if source.contains(',') && !path.exists() {
            inventory.add_host_list(source)?;
        } else {
            let canonical = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
            disk.source(&mut inventory, path, 0)?;
            let directory = if canonical.is_dir() { Some(canonical.as_path()) } else { canonical.parent() };
            beside.extend(directory.map(Path::to_path_buf));
        }
    }
    let resolved = inventory.finish()?;
    let mut places = Places::default();
    for directory in beside {
        places.sources.push(disk.place(&directory, &resolved)?);
    }
    if let Some(directory) = playbook {
        let directory = fs::canonicalize(directory).map_err(|error| unreadable(directory, &error))?;
        places.playbook = Some(disk.place(&directory, &resolved)?);
    }
    Ok((resolved, places))
}

/// What was read so far.
#[derive(Default)]
struct Disk {
    files: usize,
    bytes: usize,
}

impl Disk {
    /// Reads a source: a file, or all files of a directory.
    fn source(&mut self, inventory: &mut Inventory, path: &Path, depth: usize) -> Result<(), Mistake> {
        if path.is_dir() {
            for (name, path) in self.entries(path, depth)? {
                let is_ignored = name.starts_with('.')
                    || matches!(name.as_str(), "host_vars" | "group_vars" | "vars_plugins")
                    || IGNORED.iter().any(|ending| name.ends_with(ending));
                if !is_ignored {
                    self.source(inventory, &path, depth + 1)?;
                }
            }
            return Ok(());
        }
        let text = self.file(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = match extension {
            None => Format::Either,
            Some("yml" | "yaml" | "json") => Format::Yaml,
            Some("toml") => {
                return Err(Mistake::new(
                    &shown(path),
                    0,
                    "inventories in TOML are not read here. Give it as JSON: ansible-inventory -i FILE --list > inventory.json",
                ));
            }
            Some(_) => Format::Ini,
        };
        inventory.add_source(&shown(path), &text, format)
    }

    /// `group_vars` and `host_vars` of a directory.
    fn place(&mut self, directory: &Path, resolved: &Resolved) -> Result<Place, Mistake> {
        Ok(Place {
            groups: self.all_vars(&directory.join("group_vars"), resolved.groups())?,
            hosts: self.all_vars(&directory.join("host_vars"), resolved.hosts())?,
        })
    }

    fn all_vars<'a>(
        &mut self,
        directory: &Path,
        names: impl Iterator<Item = &'a Arc<str>>,
    ) -> Result<HashMap<Arc<str>, Vars>, Mistake> {
        let mut all = HashMap::new();
        if !directory.is_dir() {
            return Ok(all);
        }
        // One listing instead of four questions for each of many hosts.
        let entries: HashMap<String, PathBuf> = self.entries(directory, 0)?.into_iter().collect();
        for name in names {
            // The first of these that is there counts, and no other: a directory hides a file beside it.
            let path = ["", ".yml", ".yaml", ".json"].iter().find_map(|ending| entries.get(&format!("{name}{ending}")));
            let Some(path) = path else { continue };
            let mut vars = Vars::default();
            self.vars(path, &mut vars, 0)?;
            all.insert(Arc::clone(name), vars);
        }
        Ok(all)
    }

    /// A file of variables, or all such files of a directory.
    fn vars(&mut self, path: &Path, vars: &mut Vars, depth: usize) -> Result<(), Mistake> {
        if !path.is_dir() {
            let text = self.file(path)?;
            return vars.add(&shown(path), &text);
        }
        for (name, path) in self.entries(path, depth)? {
            if name.starts_with('.') || name.ends_with('~') {
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_directory = path.is_dir();
            let is_read = match extension {
                None => true,
                Some("yml" | "yaml" | "json") => !is_directory,
                Some(_) => false,
            };
            if is_read {
                self.vars(&path, vars, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What a directory holds, sorted by name.
    fn entries(&mut self, directory: &Path, depth: usize) -> Result<Vec<(String, PathBuf)>, Mistake> {
        if depth > MAX_DEPTH {
            return Err(Mistake::new(&shown(directory), 0, format!("more than {MAX_DEPTH} directories deep")));
        }
        let failed = |error: io::Error| unreadable(directory, &error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entries.len() >= MAX_FILES {
                return Err(Mistake::new(&shown(directory), 0, format!("it holds more than {MAX_FILES} files")));
            }
            if let Ok(name) = entry.file_name().into_string() {
                entries.push((name, entry.path()));
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn file(&mut self, path: &Path) -> Result<Zeroizing<String>, Mistake> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(Mistake::new(&shown(path), 0, format!("more than {MAX_FILES} files")));
        }
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_file() {
            return Err(Mistake::new(&shown(path), 0, "it is no file"));
        }
        fs::File::open(path).and_then(|file| self.bounded(file)).map_err(|error| unreadable(path, &error))
    }

    fn bounded(&mut self, reader: impl io::Read) -> io::Result<Zeroizing<String>> {
        let mut bytes = Zeroizing::new(Vec::new());
        reader.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        self.bytes += bytes.len();
        if bytes.len() > MAX_TEXT_BYTES || self.bytes > MAX_ALL_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large, alone or with all before it"));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn unreadable(path: &Path, error: &io::Error) -> Mistake {
    Mistake::new(&shown(path), 0, format!("it cannot be read: {error}"))
}

/// Endings of files in a directory of inventories that are none.
const IGNORED: &[&str] =
    &[".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry"];

/// A file for each of the most hosts, and some more.
const MAX_FILES: usize = 250_000;
const MAX_ALL_BYTES: usize = 4 * MAX_TEXT_BYTES;
const MAX_DEPTH: usize = 16;
