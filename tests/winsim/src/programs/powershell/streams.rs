//! What goes to the error stream: text, or CLIXML where powershell.exe writes that.

use super::Runspace;
use crate::soap::escape;

impl Runspace {
    /// The error stream: text, or CLIXML where powershell.exe writes that.
    pub(super) async fn error(&self, record: &str) {
        if !self.clixml {
            return self.session.print_error(record).await;
        }
        let lines: String = record.split_inclusive("\r\n").map(|line| element("Error", line)).collect();
        self.document(&lines).await;
    }

    /// Another stream that ends up in the error stream, or on a console.
    pub(super) async fn message(&self, stream: &str, text: &str) {
        if self.clixml {
            self.document(&element(stream, text)).await;
        } else {
            self.session.print(&format!("{}: {text}\r\n", stream.to_uppercase())).await;
        }
    }

    pub(super) async fn document(&self, elements: &str) {
        let document = format!(
            "#< CLIXML\r\n<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\">{elements}</Objs>"
        );
        self.session.print_error(&document).await;
    }
}

pub(super) fn terminating_error(message: &str, source: &str) -> String {
    let line = "~".repeat(source.chars().count());
    let tail = record_tail(&format!("OperationStopped: ({message}:String) [], RuntimeException"), message);
    format!("{message}\r\nAt line:1 char:1\r\n+ {source}\r\n+ {line}\r\n{tail}")
}

pub(super) fn record_tail(category: &str, id: &str) -> String {
    format!("    + CategoryInfo          : {category}\r\n    + FullyQualifiedErrorId : {id}\r\n \r\n")
}

/// A string in CLIXML.
fn element(stream: &str, text: &str) -> String {
    format!("<S S=\"{stream}\">{}</S>", escape(text).replace('\r', "_x000D_").replace('\n', "_x000A_"))
}
