//! What `ansible-inventory --list` and dynamic inventories print: JSON with groups, and the hosts' variables under `_meta`.
//!
//! It is the way in for whatever is not read here: plugins, programs, templates, vaults.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::value::{Value, Variable};
use super::{Inventory, is_kept};
use crate::Mistake;

/// Reads such a listing. Tells whether it was one.
pub(super) fn read(inventory: &mut Inventory, file: &Arc<str>, text: &str) -> Result<bool, Mistake> {
    if !text.trim_start().starts_with('{') {
        return Ok(false);
    }
    let Ok(Json::Object(mut root)) = serde_json::from_str::<Json>(text) else { return Ok(false) };
    let Some(Json::Object(mut meta)) = root.remove("_meta") else { return Ok(false) };
    let mistake = |message: String| Mistake::new(file, 0, message);
    for name in root.keys() {
        inventory.add_group(name).map_err(mistake)?;
    }
    for (name, group) in root {
        read_group(inventory, file, &name, group).map_err(mistake)?;
    }
    if let Some(Json::Object(hosts)) = meta.remove("hostvars") {
        for (name, variables) in hosts {
            let Json::Object(variables) = variables else { continue };
            // Names are names here, never patterns.
            let Some(id) = inventory.host_ids.get(name.as_str()).copied() else {
                inventory.warn(file, 0, "passed over: variables of a host that is in no group");
                continue;
            };
            let host = inventory.hosts.get_mut(id);
            host.into_iter().for_each(|host| host.variables.extend(kept(file, variables.clone())));
        }
    }
    Ok(true)
}

fn read_group(inventory: &mut Inventory, file: &Arc<str>, name: &str, group: Json) -> Result<(), String> {
    let id = inventory.add_group(name)?;
    // An array is the short form of a group that has hosts and nothing more.
    let (hosts, children, variables) = match group {
        Json::Array(hosts) => (hosts, Vec::new(), Map::new()),
        Json::Object(mut group) => {
            let mut list = |name: &str| match group.remove(name) {
                Some(Json::Array(items)) => items,
                _ => Vec::new(),
            };
            let (hosts, children) = (list("hosts"), list("children"));
            let variables = match group.remove("vars") {
                Some(Json::Object(variables)) => variables,
                _ => Map::new(),
            };
            (hosts, children, variables)
        }
        _ => return Err("a group that is neither a list nor an object".to_owned()),
    };
    for host in hosts {
        let Json::String(host) = host else { return Err("a host's name that is no text".to_owned()) };
        if host.contains('[') {
            return Err("a host's name with a bracket".to_owned());
        }
        inventory.add_hosts(&host, id, &[])?;
    }
    for child in children {
        let Json::String(child) = child else { return Err("a group's name that is no text".to_owned()) };
        let child = inventory.add_group(&child)?;
        inventory.add_child(id, child)?;
    }
    for (name, variable) in kept(file, variables) {
        inventory.set_group_variable(id, &name, variable)?;
    }
    Ok(())
}

fn kept(file: &Arc<str>, variables: Map<String, Json>) -> impl Iterator<Item = (Arc<str>, Variable)> {
    let file = Arc::clone(file);
    variables.into_iter().filter(|(name, _)| is_kept(name)).map(move |(name, value)| {
        (name.into(), Variable { value: Value::from_json(value), file: Arc::clone(&file), line: 0 })
    })
}
