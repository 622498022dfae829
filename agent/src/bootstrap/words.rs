//! Passwords that stand in a bootstrap script: guessed, so that they can be masked in what it prints.
//!
//! What counts is where a text stands: piped or fed into a program that is not known to be harmless, behind an option
//! or in a variable whose name speaks of secrets, in a URL. Rather too much is masked than too little. It runs nothing,
//! must never panic over any bytes, and is bounded in what it finds. Called by `stage`.

mod shell;

use std::collections::BTreeSet;

use shell::{Command, Word};
use zeroize::Zeroize as _;

/// What a script gives away.
#[derive(Default)]
pub(super) struct Found {
    /// Texts that may be passwords.
    pub(super) secrets: BTreeSet<String>,
    /// Variables that may stand where passwords stand.
    pub(super) variables: BTreeSet<String>,
    /// Those of them that surely do: what gets them wants a password.
    pub(super) served: BTreeSet<String>,
    bytes: usize,
}

impl Drop for Found {
    fn drop(&mut self) {
        for mut secret in std::mem::take(&mut self.secrets) {
            secret.zeroize();
        }
    }
}

/// Searches a script.
pub(super) fn search(script: &[u8]) -> Found {
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(script).into_owned());
    let pipelines = shell::pipelines(&text);
    let mut found = Found::default();
    // What is sure comes first: there is a bound.
    for reach in [Reach::Sure, Reach::Maybe] {
        found.all(&pipelines, reach, MAX_SCRIPTS);
    }
    // Only now is it known which variables matter.
    for command in pipelines.iter().flatten() {
        for (name, value) in &command.assignments {
            if found.variables.contains(name) {
                let reach = if found.served.contains(name) { Reach::Sure } else { Reach::Maybe };
                found.word(value, reach);
            }
        }
    }
    for url in text.match_indices("://").take(MAX_URLS) {
        found.url(text.get(url.0 + 3..).unwrap_or_default());
    }
    found
}

/// What becomes of a text that a program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Reach {
    /// It is only shown or changed.
    Harmless,
    /// Nobody knows.
    Maybe,
    /// It is taken for a password.
    Sure,
}

/// Whether a URL in the text has a password.
pub(super) fn holds_password(text: &str) -> bool {
    let mut urls = text.match_indices("://").take(MAX_URLS);
    urls.any(|(at, _)| url_password(text.get(at + 3..).unwrap_or_default()).is_some())
}

/// Whether a name speaks of secrets.
pub(super) fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    // A path, an address or a duration is not itself the secret.
    if words.last().is_some_and(|last| HARMLESS_ENDINGS.contains(last)) || matches!(name.as_str(), "pwd" | "oldpwd") {
        return false;
    }
    TELLING.iter().any(|part| name.contains(part))
        || words.iter().any(|word| matches!(*word, "pw" | "pwd" | "pass"))
        || name.replace(['_', '-'], "").contains("apikey")
        || name.replace(['_', '-'], "").contains("accesskey")
        || name.replace(['_', '-'], "").contains("privatekey")
}

impl Found {
    fn add(&mut self, text: &str) {
        let text = text.trim();
        let fits = text.len() >= 4 && text.len() <= MAX_SECRET && self.bytes + text.len() <= MAX_BYTES;
        if fits && !COMMON.contains(&text) && self.secrets.insert(text.to_owned()) {
            self.bytes += text.len();
        }
    }

    /// Every command, as far as texts in it reach this far.
    fn all(&mut self, pipelines: &[Vec<Command>], reach: Reach, depth: usize) {
        let commands = || pipelines.iter().flatten();
        // What a program reads from a file that another wrote it was as good as piped.
        let mut read = BTreeSet::new();
        for command in commands().filter(|command| reaches(command) == reach) {
            read.extend(command.from.iter().filter(|path| !path.is_empty()).cloned());
        }
        for pipeline in pipelines {
            // Of everything behind a command the worst.
            let mut into = Reach::Harmless;
            for command in pipeline.iter().rev() {
                if into == reach {
                    self.printed(command, reach);
                    if command.name() == Some("cat") {
                        read.extend(command.arguments().iter().map(Word::text));
                    }
                }
                let own = reaches(command);
                into = if own > into { own } else { into };
            }
        }
        for command in commands() {
            if command.to.iter().any(|path| read.contains(path)) {
                self.printed(command, reach);
            }
            self.command(command, reach, depth);
        }
    }

    fn uses(&mut self, word: &Word, reach: Reach) {
        for variable in &word.variables {
            self.variable(variable, reach);
        }
    }

    fn variable(&mut self, name: &str, reach: Reach) {
        if self.variables.len() < MAX_NAMES {
            self.variables.insert(name.to_owned());
            if reach == Reach::Sure {
                self.served.insert(name.to_owned());
            }
        }
    }

    /// A word that is a secret, as it stands and with its escapes taken apart.
    fn word(&mut self, word: &Word, reach: Reach) {
        self.uses(word, reach);
        for piece in word.pieces.iter().chain(&word.raw) {
            self.text(piece);
        }
    }

    fn text(&mut self, text: &str) {
        self.add(text);
        for line in text.split('\n') {
            self.add(line);
            let mut rest = line;
            // What `echo -e` and `printf` make of it.
            while let Some(at) = rest.find('\\') {
                self.add(rest.get(..at).unwrap_or_default());
                rest = rest.get(at + 1..).unwrap_or_default();
                rest = rest.strip_prefix(['n', 't', 'r', 'c']).unwrap_or(rest);
            }
            if rest.len() != line.len() {
                self.add(rest);
            }
            // `%s` and kin of `printf`.
            if line.contains('%') {
                for part in line.split(['%', '\\']) {
                    self.add(part.strip_prefix(['s', 'b', 'q', 'n']).unwrap_or(part));
                }
            }
        }
    }

    /// What a command prints into a pipe.
    fn printed(&mut self, command: &Command, reach: Reach) {
        let prints = command.name().is_some_and(|name| matches!(name, "echo" | "printf"));
        for word in command.arguments().iter().filter(|_| prints) {
            if word.variables.is_empty() && word.text().starts_with('-') && word.text().len() < 4 {
                continue;
            }
            self.word(word, reach);
        }
        let passes = command.name().is_some_and(|name| matches!(name, "cat" | "tee"));
        for body in command.documents.iter().filter(|_| passes) {
            self.body(body, reach);
        }
    }

    /// The whole of a here-document.
    fn body(&mut self, body: &str, reach: Reach) {
        self.text(body);
        for name in shell::variables(body) {
            self.variable(name, reach);
        }
    }

    fn command(&mut self, command: &Command, reach: Reach, depth: usize) {
        if reaches(command) == reach {
            for word in &command.strings {
                self.word(word, reach);
            }
            for body in &command.documents {
                if depth > 0 && command.name().is_some_and(|name| SHELLS.contains(&name)) {
                    let inner = shell::pipelines(body);
                    for reach in [Reach::Sure, Reach::Maybe] {
                        self.all(&inner, reach, depth - 1);
                    }
                } else if !command.name().is_some_and(|name| LISTED.contains(&name)) {
                    self.body(body, reach);
                }
            }
        }
        if reach == Reach::Sure {
            self.named(command);
        }
    }

    /// What is told by a name, an option or a form.
    fn named(&mut self, command: &Command) {
        for (name, value) in &command.assignments {
            if is_telling(name) {
                self.word(value, Reach::Maybe);
            }
        }
        for body in &command.documents {
            self.document(command, body);
        }
        let arguments = command.arguments();
        let name = command.name().unwrap_or_default();
        for (index, word) in arguments.iter().enumerate() {
            let text = word.text();
            let next = arguments.get(index + 1);
            if let Some((option, _)) = text.split_once('=').filter(|(option, _)| option.starts_with('-')) {
                if is_telling(option.trim_start_matches('-')) {
                    self.behind(word, option.len() + 1, Reach::Sure);
                }
            } else if text.starts_with('-') && is_telling(text.trim_start_matches('-')) {
                if let Some(next) = next {
                    self.word(next, Reach::Sure);
                }
            } else if let Some((variable, _)) = text.split_once('=') {
                // `export`, `env` and the like.
                if is_telling(variable) {
                    self.behind(word, variable.len() + 1, Reach::Maybe);
                }
            }
            if let Some((header, _)) =
                text.split_once(':').filter(|(header, _)| is_telling(header) || *header == "Authorization")
            {
                let value = text.get(header.len() + 1..).unwrap_or_default().trim();
                self.add(value.rsplit(' ').next().unwrap_or_default());
                self.uses(word, Reach::Sure);
            }
            if let Some(value) = text.strip_prefix("pass:") {
                self.add(value);
            }
            self.known_option(name, &text, word, next);
        }
    }

    /// Options that mean a password to certain programs only.
    fn known_option(&mut self, name: &str, text: &str, word: &Word, next: Option<&Word>) {
        let short = |option: &str| {
            text.strip_prefix(option)
                .map(|rest| if rest.is_empty() { next.map(Word::text) } else { Some(rest.to_owned()) })
        };
        let found = match name {
            "sshpass" | "mysql" | "mysqldump" | "mariadb" | "docker" | "podman" | "az" => short("-p"),
            _ if name.starts_with("ldap") => short("-w"),
            "curl" | "wget" => match text {
                "-u" | "--user" | "-U" | "--proxy-user" => {
                    Some(next.map(|next| next.text().split_once(':').map(|(_, p)| p.to_owned()).unwrap_or_default()))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some(Some(secret)) = found {
            self.add(&secret);
            for word in [Some(word), next].into_iter().flatten() {
                self.uses(word, Reach::Sure);
            }
        }
        // `user%password`, as Samba's programs take it.
        if matches!(text, "-U" | "--user" | "--username")
            && let Some(next) = next
            && let Some((_, secret)) = next.text().split_once('%')
        {
            self.add(secret);
            self.uses(next, Reach::Sure);
        } else if let Some((_, secret)) = text.strip_prefix("-U").and_then(|rest| rest.split_once('%')) {
            self.add(secret);
        }
    }

    fn behind(&mut self, word: &Word, start: usize, reach: Reach) {
        self.uses(word, reach);
        self.text(word.text().get(start..).unwrap_or_default());
        for raw in &word.raw {
            self.text(raw);
        }
    }

    fn document(&mut self, command: &Command, body: &str) {
        let name = command.name().unwrap_or_default();
        for line in body.lines() {
            let line = line.trim();
            if let Some((key, value)) = line.split_once(['=', ':'])
                && is_telling(key.trim())
            {
                self.add(value.trim().trim_matches(['"', '\'', ',', ';']));
            }
            match name {
                "chpasswd" => self.add(line.split_once(':').map_or(line, |(_, secret)| secret)),
                "expect" => {
                    if let Some((_, sent)) = line.split_once("send") {
                        let sent = sent.trim().trim_start_matches("--").trim().trim_matches('"');
                        self.text(sent);
                    }
                }
                "ktutil" | "kadmin" | "kadmin.local" => {
                    let first = line.split_whitespace().next().unwrap_or_default();
                    if !KTUTIL.contains(&first) {
                        self.add(line);
                    }
                    if let Some((_, secret)) = line.split_once("-pw ") {
                        self.add(secret.split_whitespace().next().unwrap_or_default().trim_matches(['"', '\'']));
                    }
                }
                _ => {}
            }
        }
    }

    fn url(&mut self, rest: &str) {
        if let Some(secret) = url_password(rest) {
            self.add(secret);
        }
    }
}

/// The password of `user:password@host`, where a URL goes on.
fn url_password(rest: &str) -> Option<&str> {
    let end =
        rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#' | ')')).unwrap_or(rest.len());
    let (user, _) = rest.get(..end)?.rsplit_once('@')?;
    user.split_once(':').map(|(_, secret)| secret)
}

/// What becomes of what a command gets on its standard input.
fn reaches(command: &Command) -> Reach {
    // `sudo -S` reads a password before the program reads anything.
    let asks = command.arguments().iter().any(|word| matches!(word.text().as_str(), "-S" | "--stdin"));
    match command.name() {
        Some(name) if CONSUMERS.contains(&name) => Reach::Sure,
        _ if asks => Reach::Sure,
        Some(name) if !HARMLESS.contains(&name) => Reach::Maybe,
        _ => Reach::Harmless,
    }
}

const TELLING: &[&str] = &["passw", "passphrase", "secret", "token", "credential", "kennwort"];
const HARMLESS_ENDINGS: &[&str] = &[
    "file",
    "path",
    "dir",
    "directory",
    "url",
    "uri",
    "name",
    "type",
    "env",
    "ttl",
    "stdin",
    "fd",
    "prompt",
    "policy",
    "id",
    "arn",
    "length",
    "min",
    "max",
    "age",
];
const HARMLESS: &[&str] = &[
    "tee",
    "grep",
    "egrep",
    "fgrep",
    "sed",
    "awk",
    "cat",
    "wc",
    "tr",
    "cut",
    "logger",
    "sort",
    "head",
    "tail",
    "column",
    "fold",
    "uniq",
    "tac",
    "nl",
    "less",
    "more",
    "read",
    "mapfile",
    "readarray",
    "echo",
    "printf",
];
/// Programs that read passwords from their input.
const CONSUMERS: &[&str] = &[
    "kinit",
    "kpasswd",
    "passwd",
    "sudo",
    "su",
    "net",
    "realm",
    "adcli",
    "smbclient",
    "smbpasswd",
    "samba-tool",
    "cryptsetup",
    "gpg",
    "openssl",
    "ftp",
    "sftp",
    "docker",
    "podman",
    "htpasswd",
    "ldappasswd",
    "winrs",
    "chpasswd",
    "expect",
    "ktutil",
    "kadmin",
    "kadmin.local",
    "vault",
];
/// Those whose input is not passwords line by line.
const LISTED: &[&str] = &["chpasswd", "expect", "ktutil", "kadmin", "kadmin.local"];
/// Programs whose input is a script itself, and how deep such scripts are looked at.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ksh", "zsh"];
const MAX_SCRIPTS: usize = 4;
const KTUTIL: &[&str] = &[
    "addent",
    "add_entry",
    "wkt",
    "write_kt",
    "rkt",
    "read_kt",
    "list",
    "l",
    "delent",
    "delete_entry",
    "clear",
    "quit",
    "exit",
    "q",
    "addprinc",
    "ank",
    "add_principal",
    "ktadd",
    "cpw",
    "change_password",
    "modprinc",
    "getprinc",
    "listprincs",
    "delprinc",
];
/// Masking these would hide half of every log and nothing else.
const COMMON: &[&str] = &["true", "false", "null", "none"];
/// Of one secret, of all, of names, of URLs: what is masked takes memory and time.
const MAX_SECRET: usize = 4096;
const MAX_BYTES: usize = 32 * 1024;
const MAX_NAMES: usize = 1000;
const MAX_URLS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(script: &str) -> Vec<String> {
        search(script.as_bytes()).secrets.iter().cloned().collect()
    }

    #[test]
    fn passwords_are_found_where_people_put_them() {
        for script in [
            "echo 'Mark3r!x' | kinit alice@CORP.EXAMPLE",
            "echo \"Mark3r!x\" | kinit alice",
            "echo Mark3r!x|kinit alice",
            "echo -n Mark3r!x | base64 | kinit alice",
            "printf '%s\\n' 'Mark3r!x' | kinit alice",
            "printf 'Mark3r!x\\n' | kinit alice",
            "kinit alice <<< 'Mark3r!x'",
            "kinit alice <<<Mark3r!x",
            "kinit alice <<EOF\nMark3r!x\nEOF\necho next",
            "kinit alice <<-'EOF'\n\tMark3r!x\n\tEOF\n",
            "cat <<EOF | kinit alice\nMark3r!x\nEOF\n",
            "if true; then echo 'Mark3r!x' | kinit alice; fi",
            "PASSWORD='Mark3r!x'",
            "export AD_PW=Mark3r!x; foo",
            "P=Mark3r!x\nfoo\necho \"$P\" | kinit alice",
            "P=Mark3r!x; kinit alice <<< \"${P}\"",
            "adcli join --stdin-password x --login-password=Mark3r!x",
            "tool --password Mark3r!x --user x",
            "sshpass -p 'Mark3r!x' ssh host",
            "sshpass -pMark3r!x ssh host",
            "curl -u 'alice:Mark3r!x' https://host/",
            "curl https://alice:Mark3r!x@host/x",
            "net ads join -U alice%Mark3r!x",
            "openssl rsa -passin pass:Mark3r!x",
            "echo 'alice:Mark3r!x' | cat | chpasswd\nchpasswd <<X\nalice:Mark3r!x\nX\n",
            "echo -e 'addent -password -p alice -k 1 -e aes\\nMark3r!x\\nwkt /k' | ktutil",
            "ktutil <<EOF\naddent -password -p alice -k 1\nMark3r!x\nwkt /k\nEOF\n",
            "expect <<EOF\nsend \"Mark3r!x\\r\"\nEOF\n",
            "kadmin.local -q x <<E\naddprinc -pw Mark3r!x bob\nE\n",
            "cat > /etc/x.conf <<EOF\npassword = Mark3r!x\nEOF\n",
            "curl -H 'X-Vault-Token: Mark3r!x' https://vault",
            "X=$(echo 'Mark3r!x' | openssl enc -base64)",
            "X=`echo Mark3r!x | openssl enc`",
            "f() { echo 'Mark3r!x' | kinit alice; }\nf",
            "ldapsearch -x -w Mark3r!x",
            "echo 'Mark3r!x' \\\n  | kinit alice",
            "echo 'Mark3r!x' |\n  kinit alice",
            "echo 'Mark3r!x' 2>/dev/null | kinit alice >/dev/null 2>&1",
            "timeout 30 kinit alice <<EOF\nMark3r!x\nEOF\n",
            "sudo -u bob timeout -k 5 --foreground 30s nice -n 5 env A=b kinit alice <<EOF\nMark3r!x\nEOF\n",
            "vault login - <<EOF\nMark3r!x\nEOF\n",
            "some-tool <<EOF\nMark3r!x\nEOF\n",
            "sudo bash <<'EOF'\necho 'Mark3r!x' | kinit alice\nEOF\n",
            "kinit alice < <(echo 'Mark3r!x')",
            "some-tool --in <(printf %s 'Mark3r!x')",
            "echo 'Mark3r!x' | (kinit alice)",
            "echo 'Mark3r!x' | (cd /tmp; kinit alice)",
            "(sleep 1; echo 'Mark3r!x') | kinit alice",
            "{ echo 'Mark3r!x'; sleep 1\n} 2>/dev/null | kinit alice",
            "echo 'Mark3r!x' | { cd /tmp; kinit alice; }",
            "echo 'Mark3r!x' | while read -r p; do\n kinit alice <<< \"$p\"\ndone",
            "echo 'Mark3r!x' > /tmp/f; kinit alice < /tmp/f",
            "printf '%s' 'Mark3r!x' >> \"$D/f\"\nchmod 600 \"$D/f\"\ncat \"$D/f\" | kinit alice",
            "cat > /tmp/f <<EOF\nMark3r!x\nEOF\nkinit alice < /tmp/f",
            "echo $'It\\'s'; echo 'Mark3r!x' | kinit alice; echo 'end'",
            "echo $'\\x4dark\\63r\\u0021x' | kinit alice",
            "(( y = 1 << 3 ))\necho 'Mark3r!x' | kinit alice",
            "for ((i = 1 << 3; i; i--)); do :; done\necho 'Mark3r!x' | kinit alice",
            "y=$((1 << 3))\necho 'Mark3r!x' | kinit alice",
        ] {
            let found = secrets(script);
            assert!(found.iter().any(|secret| secret == "Mark3r!x"), "{script}: {found:?}");
        }
    }

    #[test]
    fn ordinary_texts_are_not_secrets() {
        for script in [
            "echo 'Setting up things' | tee /var/log/x",
            "yes | yum install krb5-workstation krb5-libs",
            "cat <<EOT >> /etc/krb5.conf\n[libdefaults]\n default_realm = CORP.EXAMPLE\nEOT\n",
            "echo '10.0.0.1 dc dc.corp.example' >> /etc/hosts",
            "PASSWORD_FILE=/run/secrets/x\nTOKEN_TTL=1000s\ncd \"$PWD\"",
            "kinit -k -t /etc/x.keytab alice@CORP.EXAMPLE",
            "# echo 'comment' | kinit alice",
            "curl https://host/path@version",
            "{ echo 'Setting up'; yum install -y x; } > /var/log/x",
            "(echo 'Setting up'; kinit -k alice)",
            "if true; then echo 'Setting up'; kinit -k alice; fi",
            "echo 'some text' > /tmp/f; grep x < /tmp/f",
            "while read -r line; do echo 'line of text'; done < <(echo 'some text')",
            "bash <<EOF\necho 'Setting up'\nEOF\n",
            "(( y = 1 << 3 )); echo 'Setting up'",
        ] {
            assert_eq!(secrets(script), Vec::<String>::new(), "{script}");
        }
    }

    #[test]
    fn variables_of_the_pod_that_serve_as_passwords_are_named() {
        let found = search(b"echo \"$AD_LOGIN\" | kinit ${USER}\nkinit x <<< $OTHER");
        assert_eq!(found.variables.iter().map(String::as_str).collect::<Vec<_>>(), ["AD_LOGIN", "OTHER"]);
        assert_eq!(found.served, found.variables);
        let found = search(b"kinit x <<EOF\n$AD_LOGIN\nEOF\nP=$MORE\nkinit <<< \"$P\"\nkinit <<'EOF'\n\\$NOT\nEOF\n");
        assert!(["AD_LOGIN", "MORE"].iter().all(|name| found.served.contains(*name)), "{:?}", found.served);
    }

    #[test]
    fn a_variable_that_meets_an_unknown_program_is_no_password_for_that() {
        for script in
            ["echo \"for $NAME\" | base64", "some-tool <<< $NAME", "some-tool <<EOF\n$NAME\nEOF\n", "TOKEN=$NAME"]
        {
            let found = search(script.as_bytes());
            assert!(found.variables.contains("NAME"), "{script}");
            assert!(found.served.is_empty(), "{script}: {:?}", found.served);
        }
    }

    #[test]
    fn urls_with_passwords_are_known() {
        assert!(holds_password("see https://a:b@host/ there"));
        assert!(!holds_password("https://host/a:b@c https://a@host http://host:80"));
    }

    #[test]
    fn it_is_bounded() {
        let script: String = (0..100_000).map(|n| format!("PASSWORD=secret{n}\n")).collect();
        assert!(search(script.as_bytes()).bytes <= MAX_BYTES);
        // In time, too: what is nested or long must not be looked at again and again.
        for piece in ["cat|", "(", "((", "{ ", "<(", "cat <(a) ", "bash <<A\n", "$'", "{ a; } | ", "echo a >f; b <f\n"]
        {
            search(piece.repeat(20_000).as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_script_makes_it_panic(bytes in proptest::collection::vec(0_u8.., 0..300), text in "[-a-z |<>$(){}'\"`\\\\\n;&=#%:/@]{0,200}") {
            search(&bytes);
            search(text.as_bytes());
        }
    }
}
