//! What scripts hand back, as it looks: records of PowerShell's error stream, and output variables.

use lictor_winrm::clixml::Record;
use lictor_winrm::powershell::OutputValue;
use serde::Serialize;

use crate::console;

/// Something that PowerShell said on its error stream.
#[derive(Debug, Serialize)]
pub(crate) struct StderrRecordView {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

impl From<Record> for StderrRecordView {
    fn from(record: Record) -> Self {
        Self { kind: record.kind.as_str(), text: record.text }
    }
}

/// A variable when the script had ended.
#[derive(Debug, Serialize)]
pub(crate) struct VariableView {
    name: String,
    state: VariableState,
    /// Only when it is set.
    value: Option<String>,
}

/// What became of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VariableState {
    Set,
    Missing,
    Unusable,
    Unknown,
}

impl VariableView {
    pub(crate) fn new(name: String, state: VariableState, value: String) -> Self {
        Self { name, state, value: (state == VariableState::Set).then_some(value) }
    }
}

impl From<(String, OutputValue)> for VariableView {
    fn from((name, value): (String, OutputValue)) -> Self {
        match value {
            OutputValue::Value(value) => Self::new(name, VariableState::Set, value),
            OutputValue::Missing => Self::new(name, VariableState::Missing, String::new()),
            OutputValue::Unusable => Self::new(name, VariableState::Unusable, String::new()),
            OutputValue::Unknown => Self::new(name, VariableState::Unknown, String::new()),
        }
    }
}

/// Variables in lines. Line breaks in values become blanks; the JSON has them as they are.
pub(crate) fn variable_table(variables: &[VariableView]) -> String {
    console::table(
        &["variable", "state", "value"],
        variables.iter().map(|variable| {
            let state = match variable.state {
                VariableState::Set => "set",
                VariableState::Missing => "missing",
                VariableState::Unusable => "too large, or no text",
                VariableState::Unknown => "unknown",
            };
            vec![variable.name.clone(), state.to_owned(), variable.value.clone().unwrap_or_default()]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_not_a_missing_one() {
        let values = [OutputValue::Value(String::new()), OutputValue::Missing, OutputValue::Value("a\r\nb".to_owned())];
        let views: Vec<VariableView> =
            values.into_iter().map(|value| VariableView::from(("v".to_owned(), value))).collect();
        assert_eq!(
            serde_json::to_value(&views).unwrap(),
            serde_json::json!([
                {"name": "v", "state": "set", "value": ""},
                {"name": "v", "state": "missing", "value": null},
                {"name": "v", "state": "set", "value": "a\r\nb"},
            ])
        );
        assert_eq!(
            variable_table(&views),
            "VARIABLE  STATE    VALUE\nv         set      -\nv         missing  -\nv         set      a  b\n"
        );
    }
}
