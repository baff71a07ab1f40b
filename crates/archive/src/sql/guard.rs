//! What a text must be before it is planned: one question, of bounded size and depth.
//!
//! Planning recurses over expressions and copies a `WITH` table into every place that names it, so a short hostile
//! text could exhaust the stack or grow without end before any limit of time or memory is looked at. Both are counted
//! here, on the flat list of words. This file never judges what a question asks for.

use crate::ArchiveError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Word};
use std::collections::BTreeMap;

/// Longest text in bytes.
const MAX_BYTES: usize = 64 << 10;
/// Most operators (`+`, `AND`, `JOIN`, `UNION`…) in one text: a chain of them is as deep as it is long.
const MAX_OPERATORS: usize = 500;
/// Most tables that a question may come to when its `WITH` tables are written out.
const MAX_TABLES: u64 = 500;

/// Functions whose one call can make a value of any size.
pub(super) const UNBOUNDED_FUNCTIONS: [&str; 12] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "range",
    "generate_series",
    "gen_series",
    "array_pad",
    "space",
];
/// Functions that answer differently each time.
pub(super) const RANDOM_FUNCTIONS: [&str; 3] = ["random", "rand", "uuid"];

/// The one question of a text.
pub(super) fn question(sql: &str) -> Result<Statement, ArchiveError> {
    bounded(sql)?;
    let dialect = GenericDialect {};
    let parser = DFParserBuilder::new(sql).with_dialect(&dialect).build();
    let statements = parser.and_then(|mut parser| parser.parse_statements());
    let mut statements = statements.map_err(|error| super::failure::misread(&error))?;
    let not = |what: &str| ArchiveError::NotAQuery { what: what.to_owned() };
    match (statements.pop_front(), statements.is_empty()) {
        (None, _) => Err(not("the text is empty")),
        (Some(_), false) => Err(not("the text holds several statements")),
        (Some(Statement::Statement(statement)), true) if matches!(*statement, SqlStatement::Query(_)) => {
            Ok(Statement::Statement(statement))
        }
        (Some(other), true) => {
            let text = other.to_string();
            let verb = text.split_whitespace().next().unwrap_or_default().to_uppercase();
            Err(not(&format!("{verb} is a command")))
        }
    }
}

/// Refuses a text that is too long or too deep to be planned.
pub(super) fn bounded(sql: &str) -> Result<(), ArchiveError> {
    let refuse = |message: String| Err(ArchiveError::Sql { message });
    if sql.len() > MAX_BYTES {
        return refuse(format!("the text is longer than {MAX_BYTES} bytes"));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| ArchiveError::Sql {
        message: error.to_string(),
    })?;
    let tokens: Vec<Token> = tokens
        .into_iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .collect();
    let operators = tokens.iter().filter(|token| is_operator(token)).count();
    if operators > MAX_OPERATORS {
        return refuse(format!(
            "the question has {operators} operators, {MAX_OPERATORS} are allowed; use IN (…) for lists, or several questions"
        ));
    }
    let tables = written_out(&tokens);
    if tables > MAX_TABLES {
        return refuse(format!(
            "the tables of WITH come to more than {MAX_TABLES} tables when written out; name each of them less often"
        ));
    }
    Ok(())
}

/// Everything that is not known to stand flat in the tree counts as an operator.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(Word {
            keyword, quote_style, ..
        }) => {
            let deep = [
                Keyword::AND,
                Keyword::OR,
                Keyword::XOR,
                Keyword::NOT,
                Keyword::UNION,
                Keyword::INTERSECT,
                Keyword::EXCEPT,
                Keyword::MINUS,
                Keyword::JOIN,
                Keyword::IS,
                Keyword::LIKE,
                Keyword::ILIKE,
                Keyword::BETWEEN,
                Keyword::COLLATE,
                Keyword::AT,
                Keyword::DIV,
                Keyword::WITH,
            ];
            quote_style.is_none() && deep.contains(keyword)
        }
        Token::EOF
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::Whitespace(_) => false,
        _ => true,
    }
}

/// How many tables the text comes to when each `WITH` table is written out where it is named. A word counts as a table
/// after `FROM`, `JOIN`, a comma or an opening parenthesis, so that this is never too little.
fn written_out(tokens: &[Token]) -> u64 {
    // Weight of each WITH table, known from the end of its definition on.
    let mut weights: BTreeMap<String, u64> = BTreeMap::new();
    // Open definitions: name, depth of their parenthesis, weight so far.
    let mut open: Vec<(String, usize, u64)> = Vec::new();
    let (mut depth, mut total) = (0usize, 0u64);
    for (at, token) in tokens.iter().enumerate() {
        let back = |n: usize| at.checked_sub(n).and_then(|at| tokens.get(at));
        match token {
            Token::LParen => {
                depth += 1;
                if let Some(name) = defined_before(tokens, at) {
                    open.push((name, depth, 1));
                }
            }
            Token::RParen => {
                if open.last().is_some_and(|(_, opened, _)| *opened == depth)
                    && let Some((name, _, weight)) = open.pop()
                {
                    let known = weights.entry(name).or_default();
                    *known = (*known).max(weight);
                }
                depth = depth.saturating_sub(1);
            }
            Token::Word(word) => {
                let is_table = match back(1) {
                    Some(Token::Word(before)) => {
                        matches!(before.keyword, Keyword::FROM | Keyword::JOIN | Keyword::TABLE)
                    }
                    Some(Token::Comma | Token::LParen) => true,
                    _ => false,
                };
                let weight = weights.get(&word.value.to_lowercase()).copied().unwrap_or(1);
                if is_table && (weight > 1 || matches!(back(1), Some(Token::Word(_)))) {
                    total = total.saturating_add(weight);
                    for (_, _, sum) in &mut open {
                        *sum = sum.saturating_add(weight);
                    }
                }
            }
            _ => {}
        }
    }
    total
}

/// The name that the parenthesis at `at` defines: `name AS (`, `name (columns) AS (`, `name AS MATERIALIZED (`.
fn defined_before(tokens: &[Token], at: usize) -> Option<String> {
    let mut before = tokens.get(..at)?.iter().rev().peekable();
    let word = |token: Option<&Token>| match token {
        Some(Token::Word(word)) => Some((word.keyword, word.value.to_lowercase())),
        _ => None,
    };
    let (mut keyword, _) = word(before.next())?;
    if keyword == Keyword::MATERIALIZED {
        keyword = word(before.next())?.0;
        if keyword == Keyword::NOT {
            keyword = word(before.next())?.0;
        }
    }
    if keyword != Keyword::AS {
        return None;
    }
    if before.peek() == Some(&&Token::RParen) {
        let _ = before.by_ref().find(|token| **token == Token::LParen);
    }
    word(before.next()).map(|(_, name)| name)
}
