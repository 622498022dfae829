//! INI inventories: hosts below `[GROUP]`, groups below `[GROUP:children]`, variables below `[GROUP:vars]`.
//!
//! No mistake repeats what stands in a line: it may be a password.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::value::Variable;
use super::{Inventory, is_kept, literal, words};
use crate::Mistake;

/// Reads a text into an inventory.
pub(super) fn read(inventory: &mut Inventory, file: &Arc<str>, text: &str) -> Result<(), Mistake> {
    let mut reader = Reader { inventory, file, group: super::UNGROUPED, state: State::Hosts, pending: BTreeMap::new() };
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        reader.line(line, line_number).map_err(|message| Mistake::new(file, line_number, message))?;
    }
    match reader.pending.into_iter().min_by_key(|(_, pending)| pending.line) {
        None => Ok(()),
        Some((name, pending)) => {
            let what = if pending.parents.is_empty() { "has variables" } else { "is a child" };
            Err(Mistake::new(file, pending.line, format!("the group {name:?} {what}, but no section defines it")))
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Hosts,
    Children,
    Variables,
}

/// A group that was spoken of before it was defined.
struct Pending {
    line: usize,
    parents: Vec<usize>,
}

struct Reader<'a> {
    inventory: &'a mut Inventory,
    file: &'a Arc<str>,
    group: usize,
    state: State,
    pending: BTreeMap<String, Pending>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, number: usize) -> Result<(), String> {
        if let Some((name, kind)) = section(line) {
            return self.section(name, kind, number);
        }
        if line.starts_with('[') && line.ends_with(']') {
            return Err("a section that is none: [GROUP], [GROUP:children] or [GROUP:vars], without spaces".to_owned());
        }
        match self.state {
            State::Hosts => {
                let words = words::split(line)?;
                let Some((host, assignments)) = words.split_first() else { return Ok(()) };
                let mut variables = Vec::new();
                for word in assignments {
                    let (key, value) = word.split_once('=').ok_or("something behind a host that is no key=value")?;
                    if is_kept(key) {
                        variables.push((key.into(), self.variable(value, number)));
                    }
                }
                self.inventory.add_hosts(host, self.group, &variables)
            }
            State::Variables => {
                let (key, value) = line.split_once('=').ok_or("a variable without a =")?;
                let key = key.trim();
                if is_kept(key) {
                    let variable = self.variable(value.trim(), number);
                    self.inventory.set_group_variable(self.group, &key.into(), variable)?;
                }
                Ok(())
            }
            State::Children => {
                let child = group_name(line).ok_or("a group's name is expected here, and nothing more")?;
                match self.inventory.group_ids.get(child) {
                    Some(id) => self.inventory.add_child(self.group, *id),
                    // It may be defined further down.
                    None => {
                        let pending = self.pending.entry(child.to_owned());
                        let pending = pending.or_insert_with(|| Pending { line: number, parents: Vec::new() });
                        pending.parents.push(self.group);
                        Ok(())
                    }
                }
            }
        }
    }

    fn section(&mut self, name: &str, kind: &str, number: usize) -> Result<(), String> {
        self.state = match kind {
            "" | "hosts" => State::Hosts,
            "children" => State::Children,
            "vars" => State::Variables,
            _ => return Err("a section of an unknown kind: there are hosts, children and vars".to_owned()),
        };
        let known = self.inventory.group_ids.contains_key(name);
        self.group = self.inventory.add_group(name)?;
        if self.state == State::Variables {
            if !known && !self.pending.contains_key(name) {
                self.pending.insert(name.to_owned(), Pending { line: number, parents: Vec::new() });
            }
        } else if let Some(pending) = self.pending.remove(name) {
            for parent in pending.parents {
                self.inventory.add_child(parent, self.group)?;
            }
        }
        Ok(())
    }

    fn variable(&self, value: &str, line: usize) -> Variable {
        Variable { value: literal::value(value), file: Arc::clone(self.file), line }
    }
}

/// `[NAME]` or `[NAME:KIND]`, perhaps with a comment behind it.
fn section(line: &str) -> Option<(&str, &str)> {
    let (inside, behind) = line.strip_prefix('[')?.split_once(']')?;
    let behind = behind.trim_start();
    if !behind.is_empty() && !behind.starts_with('#') {
        return None;
    }
    let (name, kind) = inside.split_once(':').map_or((inside, None), |(name, kind)| (name, Some(kind)));
    let word = |kind: &str| !kind.is_empty() && kind.chars().all(|c| c.is_alphanumeric() || c == '_');
    let good = !name.is_empty() && !name.contains(char::is_whitespace) && kind.is_none_or(word);
    good.then_some((name, kind.unwrap_or_default()))
}

/// A name, perhaps with a comment behind it.
fn group_name(line: &str) -> Option<&str> {
    let end = line.find(|c: char| c == ':' || c == ']' || c.is_whitespace()).unwrap_or(line.len());
    let (name, behind) = line.split_at_checked(end)?;
    let behind = behind.trim_start();
    if name.is_empty() {
        return None;
    }
    if behind.is_empty() || behind.starts_with('#') {
        return Some(name);
    }
    None
}
