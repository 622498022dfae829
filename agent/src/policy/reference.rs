//! The table of `docs/policy.md` and the JSON schema of a policy are made from the code; with `LICTOR_WRITE_DOCS=1` in its environment
//! the test writes them instead of comparing them. And what they say of ranges is tried.

use std::path::Path;

use lictor_settings::reference::{self, Program, Reference};
use lictor_settings::{Asked, Form, Reader};
use schemars::generate::SchemaSettings;

use super::*;

const PROGRAM: Program =
    Program { title: "Policy of lictor-agent", one: "Rule", variables: None, page: "docs/policy.md" };
const COMMAND: &str = "cargo nextest run --workspace -E 'test(reference::)'";

fn asked() -> Vec<Asked> {
    let mut reader = Reader::new(config::Value::default(), &[], Vec::new());
    file::take(&mut reader, "/p".as_ref());
    // As the file is usually written: who, then how, then what.
    let order = ["hosts", "identities", "connection", "tasks", "secrets"];
    let mut asked = reader.asked().to_vec();
    asked.sort_by_key(|asked| order.iter().position(|section| asked.key.starts_with(section)));
    asked
}

#[test]
fn the_generated_files_are_current() {
    let documented = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Policy>();
    let reference = Reference::new(PROGRAM, documented.as_value(), &asked()).unwrap();
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let page = std::fs::read_to_string(top.join(PROGRAM.page)).unwrap();
    let page = reference::between_marks(&page, &reference.table()).unwrap();
    let files = [(PROGRAM.page, page), ("docs/policy.schema.json", reference::text(&reference.schema()))];
    let stale: Vec<String> =
        files.iter().filter_map(|(path, text)| reference::keep(top, path, text, COMMAND).err()).collect();
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn files_that_the_schema_is_judged_by_are_judged_alike_here() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/deploy/settings/policy")).unwrap() {
        let path = entry.unwrap().path();
        let bad = path.file_name().unwrap().to_string_lossy().starts_with("bad-");
        assert_eq!(load(&path).is_err(), bad, "{}", path.display());
    }
}

#[test]
fn every_range_ends_where_the_reference_says() {
    for Asked { key, form, .. } in asked() {
        let wrong = |value: &str| {
            let values = match &form {
                // In a list commas part its items.
                Form::List { .. } => format!("[{value}]"),
                _ => value.to_owned(),
            };
            let (section, leaf) = key.split_once('.').unwrap();
            match file::parse("p.yaml".as_ref(), format!("{section}: {{ {leaf}: {values} }}\n").as_bytes()) {
                Ok(_) => false,
                Err(file::PolicyError::Mistakes { mistakes, .. }) => {
                    assert!(mistakes.iter().all(|mistake| mistake.starts_with(&format!("{key}:"))), "{mistakes:?}");
                    true
                }
                Err(other) => panic!("{other}"),
            }
        };
        let edges = form.edges();
        for value in edges.inside {
            assert!(!wrong(&value), "{key} = {value:.80}");
        }
        for value in edges.outside {
            assert!(wrong(&value), "{key} = {value:.80} is taken");
        }
    }
}
