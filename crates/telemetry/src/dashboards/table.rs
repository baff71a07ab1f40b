//! What a dashboard is made of, and the few shapes of expressions that all of them use. Tables are written with it; it never
//! holds one.

/// One dashboard.
pub(super) struct Dashboard {
    /// Name of its file, and of its address in Grafana after `vigie-`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What it answers, and for whom.
    pub(super) description: &'static str,
    pub(super) panels: &'static [Panel],
}

/// One panel.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// Grafana's name of the unit.
    pub(super) unit: &'static str,
    pub(super) look: Look,
    /// Expression (`$S` is the selector of the dashboard's variables) and legend.
    pub(super) queries: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A row heading.
    Row,
    /// One number, green from 1 up, red below.
    Up,
    /// One number, green at 0, red above.
    Down,
    /// One number.
    Number,
    /// Lines over time.
    Lines,
}

type Queries = &'static [(&'static str, &'static str)];

const fn panel(
    look: Look,
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    queries: Queries,
) -> Panel {
    Panel {
        title,
        description,
        unit,
        look,
        queries,
    }
}

/// A heading.
pub(super) const fn row(title: &'static str) -> Panel {
    panel(Look::Row, title, "", "", &[])
}

/// Lines over time.
pub(super) const fn lines(title: &'static str, description: &'static str, unit: &'static str, q: Queries) -> Panel {
    panel(Look::Lines, title, description, unit, q)
}

/// One number.
pub(super) const fn number(title: &'static str, description: &'static str, unit: &'static str, q: Queries) -> Panel {
    panel(Look::Number, title, description, unit, q)
}

/// One number that must not be 0.
pub(super) const fn up(title: &'static str, description: &'static str, q: Queries) -> Panel {
    panel(Look::Up, title, description, "none", q)
}

/// One number that must be 0.
pub(super) const fn down(title: &'static str, description: &'static str, unit: &'static str, q: Queries) -> Panel {
    panel(Look::Down, title, description, unit, q)
}

/// Rate per second of a counter, over all instances, or by labels.
macro_rules! per_second {
    ($counter:literal) => {
        concat!("sum(rate(", $counter, "{$S}[$__rate_interval]))")
    };
    ($counter:literal by $labels:literal) => {
        concat!("sum by (", $labels, ") (rate(", $counter, "{$S}[$__rate_interval]))")
    };
    ($counter:literal where $matcher:literal) => {
        concat!("sum(rate(", $counter, "{$S,", $matcher, "}[$__rate_interval]))")
    };
    ($counter:literal where $matcher:literal by $labels:literal) => {
        concat!(
            "sum by (",
            $labels,
            ") (rate(",
            $counter,
            "{$S,",
            $matcher,
            "}[$__rate_interval]))"
        )
    };
}

/// Increase of a counter over a fixed time, over all instances, or by labels.
macro_rules! within {
    ($time:literal, $counter:literal) => {
        concat!("sum(increase(", $counter, "{$S}[", $time, "]))")
    };
    ($time:literal, $counter:literal by $labels:literal) => {
        concat!("sum by (", $labels, ") (increase(", $counter, "{$S}[", $time, "]))")
    };
    ($time:literal, $counter:literal where $matcher:literal) => {
        concat!("sum(increase(", $counter, "{$S,", $matcher, "}[", $time, "]))")
    };
    ($time:literal, $counter:literal where $matcher:literal by $labels:literal) => {
        concat!(
            "sum by (",
            $labels,
            ") (increase(",
            $counter,
            "{$S,",
            $matcher,
            "}[",
            $time,
            "]))"
        )
    };
}

/// Quantile of a histogram, over all instances, or by labels.
macro_rules! quantile {
    ($q:literal, $histogram:literal) => {
        concat!(
            "histogram_quantile(",
            $q,
            ", sum by (le) (rate(",
            $histogram,
            "_bucket{$S}[$__rate_interval])))"
        )
    };
    ($q:literal, $histogram:literal by $labels:literal) => {
        concat!(
            "histogram_quantile(",
            $q,
            ", sum by (le, ",
            $labels,
            ") (rate(",
            $histogram,
            "_bucket{$S}[$__rate_interval])))"
        )
    };
}

pub(super) use {per_second, quantile, within};
