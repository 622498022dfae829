//! The part of PowerShell's grammar that the imitation knows, as a tree. Anything else is a parse error.

/// A script or a block.
pub(super) type Script = Vec<Statement>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    /// `$name =` before the pipeline.
    pub(super) target: Option<String>,
    pub(super) pipeline: Vec<Element>,
    /// The source, for error messages.
    pub(super) source: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Element {
    Expression(Expression),
    Command { name: Expression, arguments: Vec<Argument> },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Argument {
    Parameter(String),
    Value(Expression),
    Block(Script),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(String),
    Number(i64),
    /// Pieces of a string in double quotes.
    Text(Vec<Expression>),
    Variable(String),
    /// `( )`, `$( )` and `@( )`.
    Group(Script),
    List(Vec<Expression>),
    Index(Box<Expression>, Box<Expression>),
    /// `.Name` and `.Name()`.
    Member(Box<Expression>, String),
    /// `[Type]::Name` and `[Type]::Out.Name(...)`: everything joined, in lower case.
    Static(String, Vec<Expression>),
    Range(Box<Expression>, Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
}

/// What the parser did not expect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError(pub(super) String);

const MAX_DEPTH: usize = 32;

/// Reads a whole script.
pub(super) fn parse(script: &str) -> Result<Script, SyntaxError> {
    let mut parser = Parser { characters: script.chars().collect(), at: 0, depth: 0 };
    let script = parser.statements(None)?;
    Ok(script)
}

struct Parser {
    characters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn statements(&mut self, end: Option<char>) -> Result<Script, SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError("nested too deeply".to_owned()));
        }
        let mut script = Script::new();
        loop {
            self.skip_blanks(true);
            match self.peek(0) {
                None if end.is_none() => break,
                None => return Err(SyntaxError(format!("Missing closing '{}'", end.unwrap_or_default()))),
                Some(character) if Some(character) == end => {
                    self.at += 1;
                    break;
                }
                Some(_) => script.push(self.statement()?),
            }
        }
        self.depth -= 1;
        Ok(script)
    }

    fn statement(&mut self) -> Result<Statement, SyntaxError> {
        let start = self.at;
        let target = self.assignment();
        let mut pipeline = vec![self.element()?];
        loop {
            self.skip_blanks(false);
            if self.peek(0) != Some('|') {
                break;
            }
            self.at += 1;
            self.skip_blanks(true);
            pipeline.push(self.element()?);
        }
        match self.peek(0) {
            None | Some(';' | '\n' | '\r' | ')' | '}') => {}
            Some(other) => return Err(SyntaxError(format!("Unexpected token '{other}' in expression or statement"))),
        }
        let source = self.characters[start..self.at].iter().collect::<String>().trim().to_owned();
        Ok(Statement { target, pipeline, source })
    }

    /// `$name =`, or nothing.
    fn assignment(&mut self) -> Option<String> {
        let start = self.at;
        if self.peek(0) == Some('$') {
            self.at += 1;
            let name = self.name();
            self.skip_blanks(false);
            if !name.is_empty() && self.peek(0) == Some('=') && self.peek(1) != Some('=') {
                self.at += 1;
                self.skip_blanks(true);
                return Some(name);
            }
        }
        self.at = start;
        None
    }

    fn element(&mut self) -> Result<Element, SyntaxError> {
        match self.peek(0) {
            Some('&') => {
                self.at += 1;
                self.skip_blanks(false);
                let name = self.argument_value()?;
                Ok(Element::Command { name, arguments: self.arguments()? })
            }
            Some('\'' | '"' | '$' | '(' | '@' | '[' | '0'..='9' | '-') => Ok(Element::Expression(self.expression()?)),
            _ => {
                let name = self.argument_value()?;
                if name == Expression::Literal(String::new()) {
                    let token = self.peek(0).map(String::from).unwrap_or_default();
                    return Err(SyntaxError(format!("Unexpected token '{token}'")));
                }
                Ok(Element::Command { name, arguments: self.arguments()? })
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, SyntaxError> {
        let mut arguments = Vec::new();
        loop {
            self.skip_blanks(false);
            match self.peek(0) {
                None | Some('|' | ';' | '\n' | '\r' | ')' | '}') => return Ok(arguments),
                Some('{') => {
                    self.at += 1;
                    arguments.push(Argument::Block(self.statements(Some('}'))?));
                }
                Some('-') if self.peek(1).is_some_and(char::is_alphabetic) => {
                    self.at += 1;
                    arguments.push(Argument::Parameter(self.name()));
                }
                Some(_) => {
                    let mut values = vec![self.argument_value()?];
                    self.skip_blanks(false);
                    while self.peek(0) == Some(',') {
                        self.at += 1;
                        self.skip_blanks(false);
                        values.push(self.argument_value()?);
                        self.skip_blanks(false);
                    }
                    let value = if values.len() == 1 { values.remove(0) } else { Expression::List(values) };
                    if value == Expression::Literal(String::new())
                        && self
                            .peek(0)
                            .is_some_and(|next| !next.is_whitespace() && !matches!(next, ';' | '|' | ')' | '}'))
                    {
                        return Err(SyntaxError(format!("Unexpected token '{}'", self.peek(0).unwrap_or_default())));
                    }
                    arguments.push(Argument::Value(value));
                }
            }
        }
    }

    /// A value where a command takes one: quoted, a variable, a group, or a bare word with variables in it.
    fn argument_value(&mut self) -> Result<Expression, SyntaxError> {
        match self.peek(0) {
            Some('\'' | '"' | '(' | '@') => return self.postfix(),
            Some('$') => return self.postfix(),
            _ => {}
        }
        let mut pieces = Vec::new();
        let mut word = String::new();
        while let Some(character) = self.peek(0) {
            match character {
                ' ' | '\t' | '\r' | '\n' | ';' | '|' | ')' | '}' | '{' | '(' | ',' => break,
                '`' => {
                    self.at += 1;
                    word.extend(self.peek(0));
                }
                '"' | '\'' => {
                    pieces.push(Expression::Literal(std::mem::take(&mut word)));
                    pieces.push(self.primary()?);
                    continue;
                }
                '$' if self.peek(1).is_some_and(|next| next.is_alphabetic() || next == '_' || next == '(') => {
                    pieces.push(Expression::Literal(std::mem::take(&mut word)));
                    pieces.push(self.primary()?);
                    continue;
                }
                other => word.push(other),
            }
            self.at += 1;
        }
        if pieces.is_empty() {
            return Ok(Expression::Literal(word));
        }
        pieces.push(Expression::Literal(word));
        Ok(Expression::Text(pieces))
    }

    fn expression(&mut self) -> Result<Expression, SyntaxError> {
        let mut left = self.product()?;
        loop {
            self.skip_blanks(false);
            let operator = match self.peek(0) {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                Some(',') => {
                    self.at += 1;
                    self.skip_blanks(true);
                    let right = self.product()?;
                    left = match left {
                        Expression::List(mut items) => {
                            items.push(right);
                            Expression::List(items)
                        }
                        other => Expression::List(vec![other, right]),
                    };
                    continue;
                }
                _ => return Ok(left),
            };
            self.at += 1;
            self.skip_blanks(true);
            left = Expression::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expression, SyntaxError> {
        let mut left = self.range()?;
        loop {
            self.skip_blanks(false);
            if self.peek(0) != Some('*') {
                return Ok(left);
            }
            self.at += 1;
            self.skip_blanks(true);
            left = Expression::Binary(Operator::Multiply, Box::new(left), Box::new(self.range()?));
        }
    }

    fn range(&mut self) -> Result<Expression, SyntaxError> {
        let left = self.postfix()?;
        if self.peek(0) == Some('.') && self.peek(1) == Some('.') {
            self.at += 2;
            return Ok(Expression::Range(Box::new(left), Box::new(self.postfix()?)));
        }
        Ok(left)
    }

    fn postfix(&mut self) -> Result<Expression, SyntaxError> {
        let mut value = self.primary()?;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('['), _) => {
                    self.at += 1;
                    let index = self.expression()?;
                    self.expect(']')?;
                    value = Expression::Index(Box::new(value), Box::new(index));
                }
                (Some('.'), Some(next)) if next.is_alphabetic() => {
                    self.at += 1;
                    let name = self.name();
                    if self.peek(0) == Some('(') && self.peek(1) == Some(')') {
                        self.at += 2;
                    }
                    value = Expression::Member(Box::new(value), name.to_lowercase());
                }
                _ => return Ok(value),
            }
        }
    }

    fn primary(&mut self) -> Result<Expression, SyntaxError> {
        let unexpected = |found: Option<char>| {
            SyntaxError(format!("Unexpected token '{}'", found.map(String::from).unwrap_or_default()))
        };
        match self.peek(0) {
            Some('\'') => {
                self.at += 1;
                let mut text = String::new();
                loop {
                    match (self.peek(0), self.peek(1)) {
                        (Some('\''), Some('\'')) => {
                            text.push('\'');
                            self.at += 2;
                        }
                        (Some('\''), _) => break self.at += 1,
                        (Some(other), _) => {
                            text.push(other);
                            self.at += 1;
                        }
                        (None, _) => return Err(SyntaxError("The string is missing the terminator: '.".to_owned())),
                    }
                }
                Ok(Expression::Literal(text))
            }
            Some('"') => {
                self.at += 1;
                self.expandable()
            }
            Some('$') if self.peek(1) == Some('(') => {
                self.at += 2;
                Ok(Expression::Group(self.statements(Some(')'))?))
            }
            Some('$') => {
                self.at += 1;
                let name = self.name();
                if name.is_empty() { Err(unexpected(Some('$'))) } else { Ok(Expression::Variable(name)) }
            }
            Some('(') => {
                self.at += 1;
                Ok(Expression::Group(self.statements(Some(')'))?))
            }
            Some('@') if self.peek(1) == Some('(') => {
                self.at += 2;
                Ok(Expression::List(vec![Expression::Group(self.statements(Some(')'))?)]))
            }
            Some('[') => self.static_member(),
            Some('-' | '0'..='9') => {
                let start = self.at;
                self.at += 1;
                while self.peek(0).is_some_and(|next| next.is_ascii_digit()) {
                    self.at += 1;
                }
                let digits: String = self.characters[start..self.at].iter().collect();
                digits.parse().map(Expression::Number).map_err(|_| unexpected(self.peek(0)))
            }
            other => Err(unexpected(other)),
        }
    }

    /// The inside of double quotes.
    fn expandable(&mut self) -> Result<Expression, SyntaxError> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('"'), Some('"')) => {
                    text.push('"');
                    self.at += 2;
                }
                (Some('"'), _) => break self.at += 1,
                (Some('`'), Some(escaped)) => {
                    text.push(match escaped {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '0' => '\0',
                        other => other,
                    });
                    self.at += 2;
                }
                (Some('$'), Some(next)) if next.is_alphanumeric() || matches!(next, '_' | '(' | '{' | '?') => {
                    pieces.push(Expression::Literal(std::mem::take(&mut text)));
                    pieces.push(self.primary()?);
                }
                (Some(other), _) => {
                    text.push(other);
                    self.at += 1;
                }
                (None, _) => return Err(SyntaxError("The string is missing the terminator: \".".to_owned())),
            }
        }
        pieces.push(Expression::Literal(text));
        Ok(Expression::Text(pieces))
    }

    fn static_member(&mut self) -> Result<Expression, SyntaxError> {
        let mut name = String::new();
        while let Some(character) =
            self.peek(0).filter(|next| next.is_alphanumeric() || matches!(next, '[' | ']' | ':' | '.'))
        {
            name.extend(character.to_lowercase());
            self.at += 1;
        }
        let mut arguments = Vec::new();
        if self.peek(0) == Some('(') {
            self.at += 1;
            self.skip_blanks(true);
            while self.peek(0) != Some(')') {
                arguments.push(self.expression()?);
                self.skip_blanks(true);
                if self.peek(0).is_none() {
                    return Err(SyntaxError("Missing ')' in method call.".to_owned()));
                }
            }
            self.at += 1;
        }
        Ok(Expression::Static(name, arguments))
    }

    /// The name of a variable or parameter, with its scope or drive.
    fn name(&mut self) -> String {
        if self.peek(0) == Some('{') {
            let end = self.characters[self.at..].iter().position(|next| *next == '}');
            if let Some(length) = end {
                let name = self.characters[self.at + 1..self.at + length].iter().collect();
                self.at += length + 1;
                return name;
            }
        }
        let mut name = String::new();
        while let Some(character) = self.peek(0) {
            // A colon belongs to the name only before another letter: `$env:X`, but not "$x: y".
            let belongs = character.is_alphanumeric()
                || matches!(character, '_')
                || (name.is_empty() && character == '?')
                || (character == ':' && self.peek(1).is_some_and(|next| next.is_alphabetic() || next == '_'));
            if !belongs {
                break;
            }
            name.push(character);
            self.at += 1;
        }
        name
    }

    fn expect(&mut self, wanted: char) -> Result<(), SyntaxError> {
        self.skip_blanks(true);
        if self.peek(0) == Some(wanted) {
            self.at += 1;
            Ok(())
        } else {
            Err(SyntaxError(format!("Missing '{wanted}'")))
        }
    }

    /// Blanks, comments and joined lines; with `lines` also the ends of statements.
    fn skip_blanks(&mut self, lines: bool) {
        while let Some(character) = self.peek(0) {
            match character {
                ' ' | '\t' | '\u{feff}' => {}
                '\r' | '\n' | ';' if lines => {}
                '`' if matches!(self.peek(1), Some('\r' | '\n')) => {
                    self.at += usize::from(self.peek(1) == Some('\r')) + 1
                }
                '#' => {
                    while self.peek(0).is_some_and(|next| next != '\n') {
                        self.at += 1;
                    }
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }
}
