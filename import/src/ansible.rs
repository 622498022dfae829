//! Inventories of Ansible: hosts, groups and variables, with the precedence that `ansible-inventory` gives them.
//!
//! The caller reads files and hands their texts in, in the order in which Ansible would read them; [`Inventory`] puts them
//! together. Only variables that begin with `ansible_` are kept: those are what connections are made of. What a host's
//! variables come to is a [`target::Target`], and [`plan::Plan`] sorts targets into credentials and lists of hosts.
//!
//! `ansible-inventory` itself judges all this: `tests/peers/ansible`.

pub mod disk;
mod hosts;
mod ini;
mod listing;
mod literal;
pub mod plan;
pub mod target;
pub mod value;
pub mod variables;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use value::{VAULT_HEADER, Value, Variable};

use crate::{MAX_TEXT_BYTES, Mistake};

/// Variables by their name.
pub type Variables = BTreeMap<Arc<str>, Variable>;

/// How a source is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Sections, hosts, `key=value`.
    Ini,
    /// Groups as mappings; JSON too.
    Yaml,
    /// YAML when that gives a mapping, else INI: what a file without an extension may be.
    Either,
}

/// Hosts and groups from any number of sources.
#[derive(Debug)]
pub struct Inventory {
    groups: Vec<Group>,
    group_ids: HashMap<Arc<str>, usize>,
    hosts: Vec<Host>,
    host_ids: HashMap<Arc<str>, usize>,
    memberships: usize,
    edges: usize,
    warnings: Vec<Mistake>,
}

/// A group.
#[derive(Debug)]
struct Group {
    name: Arc<str>,
    variables: Variables,
    children: Vec<usize>,
    hosts: BTreeSet<usize>,
    priority: i64,
}

/// A host.
#[derive(Debug)]
struct Host {
    name: Arc<str>,
    variables: Variables,
}

impl Default for Inventory {
    fn default() -> Self {
        let mut inventory = Self {
            groups: Vec::new(),
            group_ids: HashMap::new(),
            hosts: Vec::new(),
            host_ids: HashMap::new(),
            memberships: 0,
            edges: 0,
            warnings: Vec::new(),
        };
        for name in ["all", "ungrouped"] {
            inventory.groups.push(Group::new(name.into()));
            inventory.group_ids.insert(name.into(), inventory.groups.len() - 1);
        }
        inventory
    }
}

impl Group {
    fn new(name: Arc<str>) -> Self {
        Self { name, variables: Variables::new(), children: Vec::new(), hosts: BTreeSet::new(), priority: 1 }
    }
}

impl Inventory {
    /// Adds a source. After a mistake the inventory is of no use.
    pub fn add_source(&mut self, file: &Arc<str>, text: &str, format: Format) -> Result<(), Mistake> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Mistake::new(file, 0, format!("it is larger than {MAX_TEXT_BYTES} bytes")));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.starts_with(VAULT_HEADER) {
            return Err(Mistake::new(
                file,
                1,
                "it is a vault as a whole. Export what is in it: ansible-inventory --list",
            ));
        }
        if text.starts_with("#!") {
            return Err(Mistake::new(
                file,
                1,
                "it is a program, and programs are not run here. Give its output: ansible-inventory -i FILE --list > inventory.json",
            ));
        }
        match format {
            Format::Ini => ini::read(self, file, text),
            Format::Yaml => match listing::read(self, file, text)? {
                true => Ok(()),
                false => yaml::read(self, file, text),
            },
            Format::Either => {
                if listing::read(self, file, text)? {
                    return Ok(());
                }
                if text.trim_start().starts_with('{') {
                    return yaml::read(self, file, text);
                }
                match crate::yaml::documents(text, file) {
                    Ok(documents) if documents.first().is_some_and(|node| node.entries().is_some()) => {
                        yaml::read_documents(self, file, &documents)
                    }
                    _ => ini::read(self, file, text),
                }
            }
        }
    }

    /// Adds hosts without more, as `-i web1,web2` does.
    pub fn add_host_list(&mut self, list: &str) -> Result<(), Mistake> {
        let file: Arc<str> = "the list of hosts".into();
        for pattern in list.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            if pattern.find('[').is_some_and(|at| at > 0) {
                return Err(Mistake::new(&file, 0, "ranges are known in files alone"));
            }
            self.add_hosts(pattern, UNGROUPED, &[]).map_err(|message| Mistake::new(&file, 0, message))?;
        }
        Ok(())
    }

    /// Puts everything in order. Groups that contain themselves are mistakes.
    pub fn finish(mut self) -> Result<Resolved, Mistake> {
        let count = self.groups.len();
        let mut parents: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (id, group) in self.groups.iter().enumerate() {
            for child in &group.children {
                if let Some(parents) = parents.get_mut(*child) {
                    parents.push(id);
                }
            }
        }
        // Everything without a parent is below `all`.
        for (id, parents) in parents.iter_mut().enumerate() {
            if id != ALL && parents.is_empty() {
                parents.push(ALL);
            }
        }
        let order = self.ordered(&parents)?;
        let mut depths = vec![0_usize; count];
        let mut ancestors: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
        let mut total = 0;
        for id in order {
            let mut own = BTreeSet::new();
            for parent in &parents[id] {
                own.insert(*parent);
                own.extend(&ancestors[*parent]);
                depths[id] = depths[id].max(depths[*parent] + 1);
            }
            total += own.len();
            if total > MAX_ANCESTORS {
                return Err(too_many(&self.groups[id].name, "groups within groups"));
            }
            ancestors[id] = own;
        }

        let mut of_host: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.hosts.len()];
        for (id, group) in self.groups.iter().enumerate() {
            for host in &group.hosts {
                of_host[*host].insert(id);
            }
        }
        let mut ranks: Vec<usize> = (0..count).collect();
        ranks.sort_by(|a, b| {
            let key = |id: &usize| (depths[*id], self.groups[*id].priority, Arc::clone(&self.groups[*id].name));
            key(a).cmp(&key(b))
        });
        let mut rank = vec![0; count];
        for (position, id) in ranks.iter().enumerate() {
            rank[*id] = position;
        }
        let mut total = 0;
        let mut groups_of_host = Vec::with_capacity(self.hosts.len());
        for (host, direct) in of_host.iter_mut().enumerate() {
            direct.remove(&ALL);
            if direct.iter().any(|id| *id != UNGROUPED) {
                if direct.remove(&UNGROUPED) {
                    self.groups[UNGROUPED].hosts.remove(&host);
                }
            } else {
                direct.insert(UNGROUPED);
                self.groups[UNGROUPED].hosts.insert(host);
            }
            let mut all: BTreeSet<usize> = direct.clone();
            all.extend(direct.iter().flat_map(|id| &ancestors[*id]));
            all.remove(&ALL);
            total += all.len();
            if total > MAX_MEMBERSHIPS {
                return Err(too_many(&self.hosts[host].name, "groups of hosts"));
            }
            let mut sorted: Vec<usize> = all.into_iter().collect();
            sorted.sort_by_key(|id| rank[*id]);
            groups_of_host.push(sorted);
        }
        Ok(Resolved { inventory: self, groups_of_host })
    }

    /// Groups, parents before children.
    fn ordered(&self, parents: &[Vec<usize>]) -> Result<Vec<usize>, Mistake> {
        let mut waiting: Vec<usize> = parents.iter().map(Vec::len).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
        for (id, parents) in parents.iter().enumerate() {
            for parent in parents {
                children[*parent].push(id);
            }
        }
        let mut ready: Vec<usize> = (0..parents.len()).filter(|id| waiting[*id] == 0).collect();
        let mut order = Vec::with_capacity(parents.len());
        while let Some(id) = ready.pop() {
            order.push(id);
            for child in &children[id] {
                waiting[*child] -= 1;
                if waiting[*child] == 0 {
                    ready.push(*child);
                }
            }
        }
        match waiting.iter().position(|waiting| *waiting > 0) {
            None => Ok(order),
            Some(id) => {
                let message =
                    format!("the group {:?} contains itself, or is below one that does", self.groups[id].name);
                Err(Mistake::new(&"the inventory".into(), 0, message))
            }
        }
    }

    fn add_group(&mut self, name: &str) -> Result<usize, String> {
        if name.is_empty() {
            return Err("a group without a name".to_owned());
        }
        if let Some(id) = self.group_ids.get(name) {
            return Ok(*id);
        }
        if self.groups.len() >= MAX_GROUPS {
            return Err(format!("more than {MAX_GROUPS} groups"));
        }
        let name: Arc<str> = name.into();
        self.groups.push(Group::new(Arc::clone(&name)));
        self.group_ids.insert(name, self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }

    fn add_child(&mut self, parent: usize, child: usize) -> Result<(), String> {
        if parent == child {
            return Err(format!("the group {:?} contains itself", self.groups[parent].name));
        }
        if !self.groups[parent].children.contains(&child) {
            self.edges += 1;
            if self.edges > MAX_EDGES {
                return Err(format!("more than {MAX_EDGES} groups in groups"));
            }
            self.groups[parent].children.push(child);
        }
        Ok(())
    }

    /// Adds the hosts of a pattern to a group.
    fn add_hosts(&mut self, pattern: &str, group: usize, variables: &[(Arc<str>, Variable)]) -> Result<(), String> {
        let expanded = hosts::expand(pattern, MAX_HOSTS)?;
        for name in expanded.names {
            let id = match self.host_ids.get(name.as_str()) {
                Some(id) => *id,
                None => {
                    if self.hosts.len() >= MAX_HOSTS {
                        return Err(format!("more than {MAX_HOSTS} hosts"));
                    }
                    let name: Arc<str> = name.as_str().into();
                    self.hosts.push(Host { name: Arc::clone(&name), variables: Variables::new() });
                    self.host_ids.insert(name, self.hosts.len() - 1);
                    let id = self.hosts.len() - 1;
                    // The port counts where a host is named first, and only there.
                    if let Some(port) = expanded.port.filter(|port| *port > 0) {
                        let value = Value::Integer(port.into());
                        let variable = Variable { value, file: "behind the host's name".into(), line: 0 };
                        self.hosts[id].variables.insert("ansible_port".into(), variable);
                    }
                    id
                }
            };
            if self.groups[group].hosts.insert(id) {
                self.memberships += 1;
                if self.memberships > MAX_MEMBERSHIPS {
                    return Err(format!("more than {MAX_MEMBERSHIPS} hosts in groups"));
                }
            }
            for (key, variable) in variables {
                // Ansible looks for a group of this name first.
                match self.group_ids.get(name.as_str()) {
                    Some(group) => self.set_group_variable(*group, key, variable.clone())?,
                    None => drop(self.hosts[id].variables.insert(Arc::clone(key), variable.clone())),
                }
            }
        }
        Ok(())
    }

    fn set_group_variable(&mut self, group: usize, name: &Arc<str>, variable: Variable) -> Result<(), String> {
        let Some(group) = self.groups.get_mut(group) else { return Ok(()) };
        if &**name == PRIORITY {
            let priority = variable.value.as_integer().and_then(|number| i64::try_from(number).ok());
            group.priority = priority.ok_or_else(|| format!("{PRIORITY} is no whole number"))?;
        } else {
            group.variables.insert(Arc::clone(name), variable);
        }
        Ok(())
    }

    fn warn(&mut self, file: &Arc<str>, line: usize, message: impl Into<String>) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(Mistake::new(file, line, message));
        }
    }
}

/// An inventory whose groups are in order.
#[derive(Debug)]
pub struct Resolved {
    inventory: Inventory,
    /// All groups of each host but `all`, from the one that counts least to the one that counts most.
    groups_of_host: Vec<Vec<usize>>,
}

/// What `group_vars` and `host_vars` at one place say.
#[derive(Debug, Default)]
pub struct Place {
    /// By group.
    pub groups: HashMap<Arc<str>, Vars>,
    /// By host.
    pub hosts: HashMap<Arc<str>, Vars>,
}

/// What the files for one group or host at one place say.
#[derive(Debug, Default)]
pub struct Vars {
    /// Variables, of which later files replace those of earlier ones.
    pub variables: Variables,
    /// Files that are vaults as a whole. What is in them is not known.
    pub vaults: Vec<Arc<str>>,
}

impl Vars {
    /// Adds a file.
    pub fn add(&mut self, file: &Arc<str>, text: &str) -> Result<(), Mistake> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Mistake::new(file, 0, format!("it is larger than {MAX_TEXT_BYTES} bytes")));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.starts_with(VAULT_HEADER) {
            self.vaults.push(Arc::clone(file));
            return Ok(());
        }
        self.variables.extend(yaml::variables_file(file, text)?);
        Ok(())
    }
}

/// Where variables beside the inventory come from, in the order of Ansible: places beside the sources, then the place beside
/// the playbook.
#[derive(Debug, Default)]
pub struct Places {
    /// One for each source.
    pub sources: Vec<Place>,
    /// Beside the playbook.
    pub playbook: Option<Place>,
}

/// What counts for one host.
#[derive(Debug, Default)]
pub struct Effective<'a> {
    /// The variables that win.
    pub variables: BTreeMap<&'a str, &'a Variable>,
    /// Vaults that may set any variable of it.
    pub vaults: BTreeSet<&'a str>,
}

impl Resolved {
    /// Names of all groups, `all` among them.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.inventory.groups.iter().map(|group| &group.name)
    }

    /// Names of all hosts, in the order in which they came.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.inventory.hosts.iter().map(|host| &host.name)
    }

    /// Names of the hosts that stand in a group itself.
    pub fn hosts_of(&self, group: &str) -> Vec<&str> {
        let group = self.inventory.group_ids.get(group).and_then(|id| self.inventory.groups.get(*id));
        group.map_or_else(Vec::new, |group| group.hosts.iter().map(|id| &*self.inventory.hosts[*id].name).collect())
    }

    /// Names of the groups of a host, those above them too, but not `all`.
    pub fn groups_of(&self, host: &str) -> Vec<&str> {
        let Some(groups) = self.inventory.host_ids.get(host).and_then(|id| self.groups_of_host.get(*id)) else {
            return Vec::new();
        };
        groups.iter().map(|id| &*self.inventory.groups[*id].name).collect()
    }

    /// What was passed over, and why.
    pub fn warnings(&self) -> &[Mistake] {
        &self.inventory.warnings
    }

    /// What counts for a host, from what counts least to what counts most.
    pub fn effective<'a>(&'a self, host: &str, places: &'a Places) -> Effective<'a> {
        let mut effective = Effective::default();
        let Some(id) = self.inventory.host_ids.get(host) else { return effective };
        let groups = self.groups_of_host.get(*id).map_or(&[][..], Vec::as_slice);
        let group = |id: &usize| self.inventory.groups.get(*id);
        effective.take(group(&ALL).map(|group| &group.variables));
        groups.iter().filter_map(group).for_each(|group| effective.take(Some(&group.variables)));
        let all: Arc<str> = "all".into();
        for place in places.sources.iter().chain(&places.playbook) {
            effective.take_vars(place.groups.get(&all));
        }
        for place in places.sources.iter().chain(&places.playbook) {
            groups.iter().filter_map(group).for_each(|group| effective.take_vars(place.groups.get(&group.name)));
        }
        effective.take(self.inventory.hosts.get(*id).map(|host| &host.variables));
        for place in places.sources.iter().chain(&places.playbook) {
            effective.take_vars(place.hosts.get(host));
        }
        effective
    }
}

impl<'a> Effective<'a> {
    fn take(&mut self, variables: Option<&'a Variables>) {
        self.variables.extend(variables.into_iter().flatten().map(|(name, variable)| (&**name, variable)));
    }

    fn take_vars(&mut self, vars: Option<&'a Vars>) {
        let Some(vars) = vars else { return };
        self.take(Some(&vars.variables));
        self.vaults.extend(vars.vaults.iter().map(|file| &**file));
    }
}

/// Whether a variable is one that connections may be made of.
fn is_kept(name: &str) -> bool {
    name.starts_with("ansible_")
}

fn too_many(at: &str, what: &str) -> Mistake {
    Mistake::new(&"the inventory".into(), 0, format!("too many {what}, at {at:?}"))
}

const ALL: usize = 0;
const UNGROUPED: usize = 1;
const PRIORITY: &str = "ansible_group_priority";

/// Bounds, each far above the largest inventories that are known.
const MAX_HOSTS: usize = 200_000;
const MAX_GROUPS: usize = 50_000;
const MAX_EDGES: usize = 200_000;
const MAX_MEMBERSHIPS: usize = 4_000_000;
const MAX_ANCESTORS: usize = 2_000_000;
const MAX_WARNINGS: usize = 100;

#[cfg(test)]
mod tests;
