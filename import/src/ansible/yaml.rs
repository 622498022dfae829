//! YAML inventories: groups as mappings with `hosts`, `children` and `vars`; and files of variables.

use std::sync::Arc;

use super::value::{Value, Variable};
use super::{Inventory, Variables, is_kept};
use crate::Mistake;
use crate::yaml::{self, Node, Scalar};

/// Reads a text into an inventory.
pub(super) fn read(inventory: &mut Inventory, file: &Arc<str>, text: &str) -> Result<(), Mistake> {
    match yaml::json(text) {
        Some(root) => read_documents(inventory, file, &[root]),
        None => read_documents(inventory, file, &yaml::documents(text, file)?),
    }
}

/// Reads what was parsed already.
pub(super) fn read_documents(inventory: &mut Inventory, file: &Arc<str>, documents: &[Node]) -> Result<(), Mistake> {
    let [root] = documents else {
        return Err(Mistake::new(file, 0, "an inventory is one document, and holds at least one group"));
    };
    let Some(groups) = root.entries() else {
        return Err(Mistake::new(file, root.line, "an inventory is a mapping of groups"));
    };
    if let Some((_, plugin)) = groups.iter().find(|(key, value)| key.text() == Some("plugin") && !value.is_null()) {
        return Err(Mistake::new(
            file,
            plugin.line,
            "it configures an inventory plugin, and plugins are not run here. Give what it finds: ansible-inventory -i FILE \
             --list > inventory.json",
        ));
    }
    let mut reader = Reader { inventory, file };
    for (name, group) in groups {
        reader.group(name, group)?;
    }
    Ok(())
}

/// Variables of a file in `group_vars` or `host_vars`.
pub(super) fn variables_file(file: &Arc<str>, text: &str) -> Result<Variables, Mistake> {
    let documents = match yaml::json(text) {
        Some(root) => vec![root],
        None => yaml::documents(text, file)?,
    };
    let root = match documents.as_slice() {
        [] => return Ok(Variables::new()),
        [root] => root,
        [_, second, ..] => return Err(Mistake::new(file, second.line, "a second document in a file of variables")),
    };
    if root.is_null() {
        return Ok(Variables::new());
    }
    let entries = root.entries().ok_or_else(|| Mistake::new(file, root.line, "a file of variables is a mapping"))?;
    let mut variables = Variables::new();
    for (name, value) in entries {
        set(&mut variables, file, name, value)?;
    }
    Ok(variables)
}

/// Keeps a variable if it is one of ours.
fn set(variables: &mut Variables, file: &Arc<str>, name: &Node, value: &Node) -> Result<(), Mistake> {
    let Some(Scalar::Text(text)) = name.scalar() else {
        return Err(Mistake::new(file, name.line, "a variable's name that is no text"));
    };
    if is_kept(text) {
        let line = name.line;
        let value = Value::from_yaml(value).map_err(|(line, message)| Mistake::new(file, line, message))?;
        variables.insert(text.into(), Variable { value, file: Arc::clone(file), line });
    }
    Ok(())
}

struct Reader<'a> {
    inventory: &'a mut Inventory,
    file: &'a Arc<str>,
}

impl Reader<'_> {
    fn mistake(&self, node: &Node, message: impl Into<String>) -> Mistake {
        Mistake::new(self.file, node.line, message)
    }

    /// Reads a group. Nothing when it was passed over. The tree is bounded in depth, and so is this.
    fn group(&mut self, name: &Node, group: &Node) -> Result<Option<usize>, Mistake> {
        let entries = match group.entries() {
            Some(entries) => entries,
            None if group.is_null() => Vec::new(),
            None => {
                self.inventory.warn(self.file, group.line, "passed over: a group must be a mapping");
                return Ok(None);
            }
        };
        let Some(Scalar::Text(text)) = name.scalar() else {
            return Err(self.mistake(name, "a group's name that is no text: put it in quotation marks"));
        };
        let id = self.inventory.add_group(text).map_err(|message| self.mistake(name, message))?;
        for (key, section) in entries {
            let kind = key.text().unwrap_or_default();
            let items = match (section.entries(), section.scalar()) {
                (Some(items), _) => items,
                (None, Some(Scalar::Null)) => continue,
                // One name alone stands for itself.
                (None, Some(Scalar::Text(_))) if matches!(kind, "hosts" | "children" | "vars") => {
                    vec![(section, &*NOTHING)]
                }
                _ if matches!(kind, "hosts" | "children" | "vars") => {
                    return Err(self.mistake(section, format!("{kind} must be a mapping")));
                }
                _ => {
                    self.inventory.warn(self.file, key.line, "passed over: a group has hosts, children and vars");
                    continue;
                }
            };
            match kind {
                "vars" => {
                    let mut variables = Variables::new();
                    items.into_iter().try_for_each(|(name, value)| set(&mut variables, self.file, name, value))?;
                    for (name, variable) in variables {
                        let set = self.inventory.set_group_variable(id, &name, variable);
                        set.map_err(|message| self.mistake(section, message))?;
                    }
                }
                "children" => {
                    for (name, child) in items {
                        if let Some(child) = self.group(name, child)? {
                            self.inventory.add_child(id, child).map_err(|message| self.mistake(name, message))?;
                        } else if let Some(Scalar::Text(text)) = name.scalar()
                            && let Some(child) = self.inventory.group_ids.get(text).copied()
                        {
                            self.inventory.add_child(id, child).map_err(|message| self.mistake(name, message))?;
                        }
                    }
                }
                "hosts" => {
                    for (name, host) in items {
                        self.hosts(id, name, host)?;
                    }
                }
                _ => self.inventory.warn(self.file, key.line, "passed over: a group has hosts, children and vars"),
            }
        }
        Ok(Some(id))
    }

    fn hosts(&mut self, group: usize, name: &Node, host: &Node) -> Result<(), Mistake> {
        let Some(Scalar::Text(pattern)) = name.scalar() else {
            return Err(self.mistake(name, "a host's name that is no text: put it in quotation marks"));
        };
        let mut variables = Variables::new();
        match host.entries() {
            Some(entries) => {
                entries.into_iter().try_for_each(|(name, value)| set(&mut variables, self.file, name, value))?;
            }
            None if host.is_null() => {}
            None => return Err(self.mistake(host, "a host's variables must be a mapping")),
        }
        let variables: Vec<_> = variables.into_iter().collect();
        self.inventory.add_hosts(pattern, group, &variables).map_err(|message| self.mistake(name, message))
    }
}

/// What a name alone has below it.
static NOTHING: std::sync::LazyLock<Node> = std::sync::LazyLock::new(|| {
    Node::made(0, yaml::Kind::Scalar { text: zeroize::Zeroizing::new(String::new()), plain: true })
});
