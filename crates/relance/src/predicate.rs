//! Predicates in policies: a small SQL boolean expression over the customer row.
//!
//! The grammar is that of `vigie sql` (the same parser, DataFusion's); what is not in the subset below is refused when the
//! policy is read, with line, column and a suggestion. So the text between the quotes can be pasted behind
//! `SELECT customer FROM customers WHERE` and means the same there.
//!
//! | in the subset | |
//! |---|---|
//! | columns | those of [`Row`]; those that change with time alone are refused |
//! | literals | numbers, `'text'`, `TRUE`, `FALSE`, `NULL`; `'2026-05-01'` beside a time or a day, also as `DATE '…'`, `TIMESTAMP '…'` |
//! | comparison | `= <> != < <= > >=`, `BETWEEN`, `IN (…)`, `LIKE`, `ILIKE`, `IS NULL`, `IS TRUE`, `IS FALSE`, `IS UNKNOWN`, each with `NOT` |
//! | logic | `AND`, `OR`, `NOT`, parentheses; three-valued, as SQL has it |
//! | arithmetic | `+ - * / %` on numbers; whole numbers divide to whole numbers |
//!
//! One difference: where arithmetic has no result (division by 0, overflow), it is NULL here and an error in `vigie sql`.
//! Evaluation never fails, allocates no more than the expression is long, and reads nothing but the row.
//!
//! Length: one small language; its types, its checks and its values are understood together or not at all.

use crate::nearest::did_you_mean;
use crate::row::Row;
use sqlparser::ast::{BinaryOperator, DataType, Expr, Ident, Spanned, UnaryOperator, Value, ValueWithSpan};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token};
use std::borrow::Cow;
use std::cmp::Ordering;
use vigie_event::{Day, Timestamp};

/// Longest predicate in bytes: it bounds how deep an expression can be.
const MAX_BYTES: usize = 4096;
/// Deepest nesting of parentheses and operators that the parser follows.
const MAX_DEPTH: usize = 40;

/// Columns of table `customers` that change with time alone.
const MOVING: &[&str] = &[
    "attrition",
    "churn_30",
    "churn_90",
    "churn_365",
    "p_alive_bgnbd",
    "p_alive_mbgnbd",
    "stage",
    "as_of",
    "model",
];

/// Why a text is no predicate. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct PredicateError {
    /// Line within the predicate, from 1.
    pub line: u64,
    /// Column within the line, from 1.
    pub column: u64,
    /// What is wrong, and what was probably meant.
    pub message: String,
}

/// A checked predicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    text: String,
    root: Node,
}

/// The type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Truth,
    Whole,
    Number,
    Text,
    Time,
    Day,
}

impl Kind {
    const fn label(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Truth => "a truth value",
            Self::Whole | Self::Number => "a number",
            Self::Text => "a text",
            Self::Time => "a time",
            Self::Day => "a day",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Whole | Self::Number | Self::Null)
    }
}

macro_rules! columns {
    ($row:ident: $($name:literal, $variant:ident, $kind:ident => $cell:expr;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Column { $($variant,)* }

        /// Names of the columns that a predicate may speak of.
        pub const COLUMNS: &[&str] = &[$($name,)*];

        impl Column {
            fn parse(name: &str) -> Option<(Self, Kind)> {
                match name { $($name => Some((Self::$variant, Kind::$kind)),)* _ => None }
            }

            fn of(self, $row: &Row) -> Cell<'_> {
                match self { $(Self::$variant => $cell,)* }
            }
        }
    };
}

columns! {
    row:
    "workspace", Workspace, Text => Cell::Text(Cow::Borrowed(&row.workspace));
    "customer", Customer, Text => Cell::Text(Cow::Borrowed(&row.customer));
    "purchases", Purchases, Whole => Cell::Whole(i64::from(row.purchases));
    "revenue_minor", RevenueMinor, Whole => row.revenue_minor.map_or(Cell::Null, Cell::Whole);
    "currency", Currency, Text => row.currency.as_deref().map_or(Cell::Null, |text| Cell::Text(Cow::Borrowed(text)));
    "first_activity", FirstActivity, Time => row.first_activity.map_or(Cell::Null, Cell::Time);
    "last_activity", LastActivity, Time => row.last_activity.map_or(Cell::Null, Cell::Time);
    "last_purchase_day", LastPurchaseDay, Day => row.last_purchase_day.map_or(Cell::Null, Cell::Day);
    "active_days", ActiveDays, Whole => Cell::Whole(i64::from(row.active_days));
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
enum Cell<'a> {
    Null,
    Truth(bool),
    Whole(i64),
    Number(f64),
    Text(Cow<'a, str>),
    Time(Timestamp),
    Day(Day),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    Plus,
    Minus,
    Times,
    Over,
    Modulo,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Literal(Cell<'static>),
    Column(Column),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Node>),
    IsNull(Box<Node>),
    Is(bool, Box<Node>),
    Like {
        text: Box<Node>,
        pattern: Box<Node>,
        escape: char,
        any_case: bool,
    },
}

impl Predicate {
    /// Reads and checks a predicate.
    pub fn parse(text: &str) -> Result<Self, PredicateError> {
        let at_start = |message: String| PredicateError {
            line: 1,
            column: 1,
            message,
        };
        if text.len() > MAX_BYTES {
            return Err(at_start(format!("{} bytes are more than {MAX_BYTES}", text.len())));
        }
        let dialect = GenericDialect {};
        let parse = || -> Result<(Expr, sqlparser::tokenizer::TokenWithSpan), sqlparser::parser::ParserError> {
            let mut parser = Parser::new(&dialect)
                .with_recursion_limit(MAX_DEPTH)
                .try_with_sql(text)?;
            Ok((parser.parse_expr()?, parser.peek_token()))
        };
        let (expr, rest) = parse().map_err(|error| at_parser(text, &error.to_string()))?;
        if rest.token != Token::EOF {
            return Err(fault(
                rest.span.start,
                format!("the expression ends before {:?}", rest.token.to_string()),
            ));
        }
        let (root, kind) = compile(&expr)?;
        match kind {
            Kind::Truth | Kind::Null => Ok(Self {
                text: text.to_owned(),
                root,
            }),
            other => Err(fault(
                expr.span().start,
                format!("the expression is {}, not a truth value", other.label()),
            )),
        }
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is true of a customer; where it is unknown (NULL), it is not.
    #[must_use]
    pub fn holds(&self, row: &Row) -> bool {
        self.root.value(row) == Cell::Truth(true)
    }
}

impl serde::Serialize for Predicate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn fault(at: Location, message: String) -> PredicateError {
    PredicateError {
        line: at.line.max(1),
        column: at.column.max(1),
        message,
    }
}

/// The parser words its position at the end of its message; where it names none, the text has ended too early.
fn at_parser(text: &str, message: &str) -> PredicateError {
    let message = message.trim_start_matches("sql parser error: ");
    let (what, place) = message.rsplit_once(" at Line: ").unwrap_or((message, ""));
    let mut numbers = place
        .split(", Column: ")
        .filter_map(|number| number.trim().parse().ok());
    let last = text.lines().last().unwrap_or_default();
    PredicateError {
        line: numbers.next().unwrap_or(text.lines().count().max(1) as u64),
        column: numbers.next().unwrap_or(last.chars().count() as u64 + 1),
        message: what.to_owned(),
    }
}

fn compile(expr: &Expr) -> Result<(Node, Kind), PredicateError> {
    let here = || expr.span().start;
    match expr {
        Expr::Nested(inner) => compile(inner),
        Expr::Identifier(name) => column(name),
        Expr::CompoundIdentifier(names) => match names.as_slice() {
            [table, name] if table.value.eq_ignore_ascii_case("customers") => column(name),
            _ => Err(fault(
                here(),
                format!("{expr}: only columns of customers are known here"),
            )),
        },
        Expr::Value(value) => literal(value),
        Expr::TypedString(typed) => {
            let text = match &typed.value.value {
                Value::SingleQuotedString(text) => text.as_str(),
                _ => "",
            };
            match typed.data_type {
                DataType::Date => Ok((Node::Literal(Cell::Day(day(text, typed.value.span.start)?)), Kind::Day)),
                DataType::Timestamp(..) => Ok((
                    Node::Literal(Cell::Time(time(text, typed.value.span.start)?)),
                    Kind::Time,
                )),
                _ => Err(fault(here(), format!("{expr}: only DATE and TIMESTAMP are known here"))),
            }
        }
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => Ok((Node::Not(Box::new(truth(expr)?)), Kind::Truth)),
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr,
        } => number(expr),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => {
            let (node, kind) = number(expr)?;
            let zero = Node::Literal(Cell::Whole(0));
            Ok((
                Node::Arithmetic(Arithmetic::Minus, Box::new(zero), Box::new(node)),
                kind,
            ))
        }
        Expr::BinaryOp { left, op, right } => binary(expr, left, op, right),
        Expr::Between {
            expr,
            negated,
            low,
            high,
        } => {
            let above = compare(Comparison::GreaterOrEqual, expr, low)?;
            let below = compare(Comparison::LessOrEqual, expr, high)?;
            Ok((
                not_if(*negated, Node::And(Box::new(above), Box::new(below))),
                Kind::Truth,
            ))
        }
        Expr::InList { expr, list, negated } => {
            let (value, kind) = compile(expr)?;
            let items: Result<Vec<Node>, PredicateError> = list
                .iter()
                .map(|item| comparable((Node::Literal(Cell::Null), kind), item).map(|(_, item)| item))
                .collect();
            Ok((not_if(*negated, Node::In(Box::new(value), items?)), Kind::Truth))
        }
        Expr::IsNull(inner) | Expr::IsUnknown(inner) => Ok((Node::IsNull(Box::new(compile(inner)?.0)), Kind::Truth)),
        Expr::IsNotNull(inner) | Expr::IsNotUnknown(inner) => {
            let null = Node::IsNull(Box::new(compile(inner)?.0));
            Ok((not_if(true, null), Kind::Truth))
        }
        Expr::IsTrue(inner) => Ok((Node::Is(true, Box::new(truth(inner)?)), Kind::Truth)),
        Expr::IsFalse(inner) => Ok((Node::Is(false, Box::new(truth(inner)?)), Kind::Truth)),
        Expr::IsNotTrue(inner) => Ok((not_if(true, Node::Is(true, Box::new(truth(inner)?))), Kind::Truth)),
        Expr::IsNotFalse(inner) => Ok((not_if(true, Node::Is(false, Box::new(truth(inner)?))), Kind::Truth)),
        Expr::Like {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } => like(*negated, expr, pattern, escape_char.as_ref(), false),
        Expr::ILike {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } => like(*negated, expr, pattern, escape_char.as_ref(), true),
        other => Err(fault(
            here(),
            format!("{other} is not in the subset of SQL that predicates understand"),
        )),
    }
}

fn column(name: &Ident) -> Result<(Node, Kind), PredicateError> {
    // As in `vigie sql`, a name without quotes stands for the same in small letters.
    let text = match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    };
    if let Some((column, kind)) = Column::parse(&text) {
        return Ok((Node::Column(column), kind));
    }
    let message = if MOVING.contains(&text.as_str()) {
        format!(
            "{text} changes with time alone; a predicate says who, `score` and `threshold` say when. Columns: {}",
            COLUMNS.join(", ")
        )
    } else {
        format!(
            "no column {text:?}{}; columns: {}",
            did_you_mean(&text, COLUMNS.iter().copied()),
            COLUMNS.join(", ")
        )
    };
    Err(fault(name.span.start, message))
}

fn literal(value: &ValueWithSpan) -> Result<(Node, Kind), PredicateError> {
    let (cell, kind) = match &value.value {
        Value::Number(digits, _) => match digits.parse::<i64>() {
            Ok(whole) => (Cell::Whole(whole), Kind::Whole),
            Err(_) => match digits.parse::<f64>() {
                Ok(number) if number.is_finite() => (Cell::Number(number), Kind::Number),
                _ => return Err(fault(value.span.start, format!("{digits} is no number"))),
            },
        },
        Value::SingleQuotedString(text) => (Cell::Text(Cow::Owned(text.clone())), Kind::Text),
        Value::Boolean(truth) => (Cell::Truth(*truth), Kind::Truth),
        Value::Null => (Cell::Null, Kind::Null),
        other => {
            let message = format!("{other} is no literal of the subset; texts stand in 'single quotes'");
            return Err(fault(value.span.start, message));
        }
    };
    Ok((Node::Literal(cell), kind))
}

fn binary(whole: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<(Node, Kind), PredicateError> {
    let comparison = match op {
        BinaryOperator::And => return Ok((Node::And(Box::new(truth(left)?), Box::new(truth(right)?)), Kind::Truth)),
        BinaryOperator::Or => return Ok((Node::Or(Box::new(truth(left)?), Box::new(truth(right)?)), Kind::Truth)),
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => {
            let arithmetic = match op {
                BinaryOperator::Plus => Arithmetic::Plus,
                BinaryOperator::Minus => Arithmetic::Minus,
                BinaryOperator::Multiply => Arithmetic::Times,
                BinaryOperator::Divide => Arithmetic::Over,
                BinaryOperator::Modulo => Arithmetic::Modulo,
                other => {
                    let message = format!("operator {other} is not in the subset of SQL that predicates understand");
                    return Err(fault(whole.span().start, message));
                }
            };
            let ((left, a), (right, b)) = (number(left)?, number(right)?);
            let kind = if a == Kind::Number || b == Kind::Number {
                Kind::Number
            } else {
                Kind::Whole
            };
            return Ok((Node::Arithmetic(arithmetic, Box::new(left), Box::new(right)), kind));
        }
    };
    Ok((compare(comparison, left, right)?, Kind::Truth))
}

fn compare(comparison: Comparison, left: &Expr, right: &Expr) -> Result<Node, PredicateError> {
    // A text beside a time is a time, on whichever side it stands.
    let (a, b) = match compile(left)? {
        (node, Kind::Text) => {
            let (b, a) = comparable(compile(right)?, left)?;
            drop(node);
            (a, b)
        }
        known => comparable(known, right)?,
    };
    Ok(Node::Compare(comparison, Box::new(a), Box::new(b)))
}

/// Two sides that can be compared: `known` as it is, `other` made to fit.
fn comparable(known: (Node, Kind), other: &Expr) -> Result<(Node, Node), PredicateError> {
    let (node, kind) = known;
    let (side, other_kind) = compile(other)?;
    let side = match (kind, other_kind, side) {
        (Kind::Time | Kind::Day, Kind::Text, Node::Literal(Cell::Text(text))) => {
            Node::Literal(Cell::Time(time(&text, other.span().start)?))
        }
        (a, b, side) if a == b || a == Kind::Null || b == Kind::Null || (a.is_number() && b.is_number()) => side,
        (Kind::Time, Kind::Day, side) | (Kind::Day, Kind::Time, side) => side,
        (a, b, _) => {
            let message = format!("{} cannot be compared with {} ({other})", a.label(), b.label());
            return Err(fault(other.span().start, message));
        }
    };
    Ok((node, side))
}

fn like(
    negated: bool,
    expr: &Expr,
    pattern: &Expr,
    escape: Option<&ValueWithSpan>,
    any_case: bool,
) -> Result<(Node, Kind), PredicateError> {
    let text = |expr: &Expr| match compile(expr)? {
        (node, Kind::Text | Kind::Null) => Ok(node),
        (_, kind) => Err(fault(
            expr.span().start,
            format!("LIKE compares texts; {expr} is {}", kind.label()),
        )),
    };
    let escape = match escape.map(|escape| (&escape.value, escape.span.start)) {
        None => '\\',
        Some((Value::SingleQuotedString(escape), at)) => {
            let mut letters = escape.chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => letter,
                _ => return Err(fault(at, format!("ESCAPE {escape:?} is not one character"))),
            }
        }
        Some((other, at)) => return Err(fault(at, format!("ESCAPE {other} is not one character"))),
    };
    let node = Node::Like {
        text: Box::new(text(expr)?),
        pattern: Box::new(text(pattern)?),
        escape,
        any_case,
    };
    Ok((not_if(negated, node), Kind::Truth))
}

fn truth(expr: &Expr) -> Result<Node, PredicateError> {
    match compile(expr)? {
        (node, Kind::Truth | Kind::Null) => Ok(node),
        (_, kind) => Err(fault(
            expr.span().start,
            format!("{expr} is {}, not a truth value", kind.label()),
        )),
    }
}

fn number(expr: &Expr) -> Result<(Node, Kind), PredicateError> {
    match compile(expr)? {
        (node, kind) if kind.is_number() => Ok((node, kind)),
        (_, kind) => Err(fault(
            expr.span().start,
            format!("{expr} is {}, not a number", kind.label()),
        )),
    }
}

fn time(text: &str, at: Location) -> Result<Timestamp, PredicateError> {
    Timestamp::parse(text).map_err(|error| {
        fault(
            at,
            format!("{text:?} is no time: {error}; write '2026-05-01' or '2026-05-01T10:00:00Z'"),
        )
    })
}

fn day(text: &str, at: Location) -> Result<Day, PredicateError> {
    time(text, at).map(Timestamp::day)
}

fn not_if(negated: bool, node: Node) -> Node {
    if negated { Node::Not(Box::new(node)) } else { node }
}

impl Node {
    fn value<'a>(&'a self, row: &'a Row) -> Cell<'a> {
        match self {
            Self::Literal(cell) => cell.clone(),
            Self::Column(column) => column.of(row),
            Self::Not(inner) => match inner.value(row) {
                Cell::Truth(truth) => Cell::Truth(!truth),
                _ => Cell::Null,
            },
            Self::And(left, right) => match left.value(row) {
                Cell::Truth(false) => Cell::Truth(false),
                left => match (left, right.value(row)) {
                    (_, Cell::Truth(false)) => Cell::Truth(false),
                    (Cell::Truth(true), Cell::Truth(true)) => Cell::Truth(true),
                    _ => Cell::Null,
                },
            },
            Self::Or(left, right) => match left.value(row) {
                Cell::Truth(true) => Cell::Truth(true),
                left => match (left, right.value(row)) {
                    (_, Cell::Truth(true)) => Cell::Truth(true),
                    (Cell::Truth(false), Cell::Truth(false)) => Cell::Truth(false),
                    _ => Cell::Null,
                },
            },
            Self::Compare(comparison, left, right) => {
                let order = left.value(row).order(&right.value(row));
                order.map_or(Cell::Null, |order| Cell::Truth(comparison.holds(order)))
            }
            Self::Arithmetic(operator, left, right) => operator.apply(&left.value(row), &right.value(row)),
            Self::In(value, items) => {
                let value = value.value(row);
                let mut unknown = value == Cell::Null;
                for item in items {
                    match value.order(&item.value(row)) {
                        Some(Ordering::Equal) => return Cell::Truth(true),
                        Some(_) => {}
                        None => unknown = true,
                    }
                }
                if unknown { Cell::Null } else { Cell::Truth(false) }
            }
            Self::IsNull(inner) => Cell::Truth(inner.value(row) == Cell::Null),
            Self::Is(truth, inner) => Cell::Truth(inner.value(row) == Cell::Truth(*truth)),
            Self::Like {
                text,
                pattern,
                escape,
                any_case,
            } => match (text.value(row), pattern.value(row)) {
                (Cell::Text(text), Cell::Text(pattern)) if *any_case => {
                    Cell::Truth(matches_pattern(&text.to_lowercase(), &pattern.to_lowercase(), *escape))
                }
                (Cell::Text(text), Cell::Text(pattern)) => Cell::Truth(matches_pattern(&text, &pattern, *escape)),
                _ => Cell::Null,
            },
        }
    }
}

impl Cell<'_> {
    /// How two values stand to each other; `None` where either is NULL.
    fn order(&self, other: &Self) -> Option<Ordering> {
        let float = |cell: &Self| match cell {
            Self::Whole(whole) => Some(*whole as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        };
        let instant = |cell: &Self| match cell {
            Self::Time(time) => Some(*time),
            Self::Day(day) => Some(day.start()),
            _ => None,
        };
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Truth(a), Self::Truth(b)) => Some(a.cmp(b)),
            (a, b) => match (instant(a), instant(b)) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => float(a)?.partial_cmp(&float(b)?),
            },
        }
    }
}

impl Comparison {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Arithmetic {
    fn apply<'a>(self, left: &Cell<'_>, right: &Cell<'_>) -> Cell<'a> {
        let (a, b) = match (left, right) {
            (Cell::Whole(a), Cell::Whole(b)) => {
                let whole = match self {
                    Self::Plus => a.checked_add(*b),
                    Self::Minus => a.checked_sub(*b),
                    Self::Times => a.checked_mul(*b),
                    Self::Over => a.checked_div(*b),
                    Self::Modulo => a.checked_rem(*b),
                };
                return whole.map_or(Cell::Null, Cell::Whole);
            }
            (Cell::Whole(a), Cell::Number(b)) => (*a as f64, *b),
            (Cell::Number(a), Cell::Whole(b)) => (*a, *b as f64),
            (Cell::Number(a), Cell::Number(b)) => (*a, *b),
            _ => return Cell::Null,
        };
        let number = match self {
            Self::Plus => a + b,
            Self::Minus => a - b,
            Self::Times => a * b,
            Self::Over => a / b,
            Self::Modulo => a % b,
        };
        if number.is_finite() {
            Cell::Number(number)
        } else {
            Cell::Null
        }
    }
}

/// SQL's LIKE: `%` stands for any text, `_` for one character. Linear but for going back to the last `%`.
fn matches_pattern(text: &str, pattern: &str, escape: char) -> bool {
    enum Item {
        Any,
        One,
        Letter(char),
    }
    let mut items = Vec::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        items.push(match letter {
            _ if letter == escape => Item::Letter(letters.next().unwrap_or(escape)),
            '%' => Item::Any,
            '_' => Item::One,
            letter => Item::Letter(letter),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut item) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < text.len() {
        let fits = match (items.get(item), text.get(at)) {
            (Some(Item::Any), _) => {
                back = Some((item, at));
                item += 1;
                continue;
            }
            (Some(Item::One), Some(_)) => true,
            (Some(Item::Letter(letter)), Some(there)) => letter == there,
            _ => false,
        };
        if fits {
            (at, item) = (at + 1, item + 1);
        } else if let Some((any, from)) = back {
            back = Some((any, from + 1));
            (at, item) = (from + 1, any + 1);
        } else {
            return false;
        }
    }
    items
        .get(item..)
        .unwrap_or_default()
        .iter()
        .all(|item| matches!(item, Item::Any))
}
