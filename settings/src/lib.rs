//! Settings of Lictor's programs: values read one by one out of files and the environment, with every mistake at once, and what the
//! reader was asked for turned into a reference page, a JSON schema and an example file.
//!
//! Knows no single setting: keys, defaults and ranges stand in the loaders of agent and control plane, and nowhere else. Opens no
//! file but the configuration, and must never be given a secret. Called by the loaders, and by the tests that keep the generated
//! files current.

mod form;
pub mod layers;
pub mod overview;
mod reader;
pub mod reference;

pub use form::Form;
pub use layers::Layers;
pub use overview::{Origins, Overview, Setting};
pub use reader::{Asked, Reader};
