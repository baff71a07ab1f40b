//! Reads the shared files.

use std::io::Read;
use std::path::PathBuf;

pub(crate) fn read(name: &str) -> String {
    let root = std::env::var_os("VIGIE_SHARED").unwrap_or_else(|| {
        panic!("set VIGIE_SHARED to the directory that holds data/ and goldens/ (the feature `shared-data` needs it)")
    });
    let path = PathBuf::from(root).join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads a file of its own that is known to be small"
    )]
    let read = if name.ends_with(".gz") {
        flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text)
    } else {
        (&*bytes).read_to_string(&mut text)
    };
    assert!(read.is_ok(), "{}: {read:?}", path.display());
    text
}

/// A table of comma-separated cells without quotes.
pub(crate) struct Table {
    columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn read(name: &str) -> Self {
        let text = read(name);
        let mut lines = text
            .lines()
            .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        Self {
            columns: lines.next().unwrap(),
            rows: lines.collect(),
        }
    }

    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        let at = self.column(name).unwrap_or_else(|| panic!("no column {name}"));
        self.rows
            .iter()
            .map(|row| row[at].parse().unwrap_or(f64::NAN))
            .collect()
    }
}
