//! The grammar of `labelSelector`, with Kubernetes' error messages.

use super::label::{LabelSelector, Operator, Requirement};
use crate::util::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Bad,
    End,
    Word,
    Open,
    Close,
    Comma,
    Not,
    In,
    NotIn,
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// Parses the text of a label selector.
pub(super) fn labels(text: &str) -> Result<LabelSelector, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            (Token::End, _) => break,
            (Token::Word | Token::Not, _) => {}
            (_, found) => return Err(format!("found '{found}', expected: !, identifier, or 'end of string'")),
        }
        requirements.push(parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
        match parser.take() {
            (Token::End, _) => break,
            (Token::Comma, _) => match parser.peek() {
                (Token::Word | Token::Not, _) => {}
                (_, found) => return Err(format!("found '{found}', expected: identifier after ','")),
            },
            (_, found) => return Err(format!("found '{found}', expected: ',' or 'end of string'")),
        }
    }
    Ok(LabelSelector::of(requirements))
}

struct Parser<'a> {
    /// Ends with `End`.
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next token, with `in` and `notin` as operators.
    fn peek_operator(&self) -> (Token, &'a str) {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    /// The next token, with `in` and `notin` as plain words.
    fn peek(&self) -> (Token, &'a str) {
        match self.peek_operator() {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            other => other,
        }
    }

    fn take(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.peek().0 == Token::Not;
        if negated {
            self.at += 1;
        }
        let (token, key) = self.take();
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let why = names::qualified_name(key);
        if !why.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", why.join("; ")));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let (token, found) = self.peek_operator();
        self.at += 1;
        let (operator, values) = match token {
            Token::In => (Operator::In, self.values()?),
            Token::NotIn => (Operator::NotIn, self.values()?),
            Token::Equal => (Operator::In, vec![self.value()?]),
            Token::NotEqual => (Operator::NotIn, vec![self.value()?]),
            Token::Greater => (Operator::GreaterThan, vec![self.value()?]),
            Token::Less => (Operator::LessThan, vec![self.value()?]),
            _ => return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Requirement::new(key, operator, values)
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            (Token::End | Token::Comma, _) => Ok(String::new()),
            (Token::Word, value) => {
                self.at += 1;
                Ok(value.to_owned())
            }
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }

    /// A list in parentheses. A missing element, as in `(a,)` and in `()`, is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            (Token::Open, _) => {}
            (_, found) => return Err(format!("found '{found}' expected: '('")),
        }
        let mut values = Vec::new();
        match self.peek() {
            (Token::Word | Token::Comma | Token::Close, _) => {}
            (_, found) => return Err(format!("found '{found}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.peek() {
                (Token::Word, value) => {
                    self.at += 1;
                    values.push(value.to_owned());
                }
                (Token::Comma | Token::Close, _) => values.push(String::new()),
                (_, found) => return Err(format!("found '{found}', expected: ',', or identifier")),
            }
            match self.take() {
                (Token::Comma, _) => {}
                (Token::Close, _) => return Ok(values),
                (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
            }
        }
    }
}

fn tokens(text: &str) -> Vec<(Token, &str)> {
    let special = |c: char| "=!(),<>".contains(c);
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if special(first) {
            match rest.as_bytes() {
                [b'=', b'=', ..] => (Token::Equal, 2),
                [b'!', b'=', ..] => (Token::NotEqual, 2),
                [b'=', ..] => (Token::Equal, 1),
                [b'!', ..] => (Token::Not, 1),
                [b'(', ..] => (Token::Open, 1),
                [b')', ..] => (Token::Close, 1),
                [b',', ..] => (Token::Comma, 1),
                [b'>', ..] => (Token::Greater, 1),
                [b'<', ..] => (Token::Less, 1),
                _ => (Token::Bad, 1),
            }
        } else {
            let length = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
            let token = match &rest[..length] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Word,
            };
            (token, length)
        };
        tokens.push((token, &rest[..length]));
        rest = rest[length..].trim_start_matches(space);
    }
    tokens.push((Token::End, ""));
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_what_they_mean() {
        for (text, canonical) in [
            ("", ""),
            ("  ", ""),
            ("a", "a"),
            ("!a", "!a"),
            ("! a", "!a"),
            ("!in", "!in"),
            ("a=b", "a=b"),
            ("a == b", "a=b"),
            ("a!=b", "a!=b"),
            ("a=", "a="),
            ("a=,b", "a=,b"),
            ("b,a", "a,b"),
            ("a in (x,y)", "a in (x,y)"),
            ("a in(y , x,x)", "a in (x,y)"),
            ("a in (x)", "a=x"),
            ("a notin (x)", "a!=x"),
            ("a notin (,x)", "a notin (,x)"),
            ("a in (x,)", "a in (,x)"),
            ("a in (,)", "a="),
            ("a in ()", "a="),
            ("a notin ()", "a!="),
            ("in in (in,notin)", "in in (in,notin)"),
            ("notin", "notin"),
            ("a>1,b<2", "a>1,b<2"),
            ("a.b/c=d", "a.b/c=d"),
            ("partition in (customerA, customerB),environment!=qa", "environment!=qa,partition in (customerA,customerB)"),
        ] {
            assert_eq!(labels(text).map(|it| it.to_string()), Ok(canonical.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn wrong_texts() {
        for (text, why) in [
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in", "unable to parse requirement: found '' expected: '('"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (x y)", "unable to parse requirement: found 'y', expected: ',' or ')'"),
            ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a==(b)", "unable to parse requirement: found '(', expected: identifier"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"),
            (
                "a=-b",
                "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be an empty string or consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ),
        ] {
            assert_eq!(labels(text), Err(why.to_owned()), "{text:?}");
        }
    }
}
