//! Lines as cells with names, whatever the format. It knows no column's meaning.

use super::mapping::{Columns, value};
use super::{Encoding, Format, ImportError, MAX_LINE, Mapping, MappingError};
use csv::ByteRecord;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::rc::Rc;

/// Bytes of a refused line that are kept.
const KEPT: usize = 8 << 10;

/// One line.
pub(super) enum Cells<'a> {
    Csv { record: &'a ByteRecord, header: &'a Header },
    Json { text: String, object: Map<String, Value> },
}

/// The columns of a CSV.
#[derive(Debug)]
pub(super) struct Header {
    at: HashMap<String, usize>,
    names: Vec<String>,
    encoding: Encoding,
    separator: u8,
}

impl Cells<'_> {
    /// The trimmed text of a column; `None` where there is none.
    pub(super) fn get(&self, column: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Csv { record, header } => {
                let text = header.encoding.text(record.get(*header.at.get(column)?)?)?;
                Some(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                    Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
                })
            }
            Self::Json { object, .. } => {
                let value = object.get(column).or_else(|| {
                    let mut parts = column.split('.');
                    let first = object.get(parts.next()?)?;
                    parts.try_fold(first, |value, part| value.get(part))
                })?;
                match value {
                    Value::Null => None,
                    Value::String(text) => Some(Cow::Borrowed(text.trim())),
                    other => Some(Cow::Owned(other.to_string())),
                }
            }
        }
    }

    /// The whole object of a line of JSON.
    pub(super) fn object(&self) -> Option<&str> {
        match self {
            Self::Csv { .. } => None,
            Self::Json { text, .. } => Some(text),
        }
    }

    /// Whether there is a readable cell for every column of the first line.
    pub(super) fn complete(&self) -> bool {
        match self {
            Self::Csv { record, header } => {
                record.len() >= header.names.len() && record.iter().all(|cell| header.encoding.text(cell).is_some())
            }
            Self::Json { .. } => true,
        }
    }

    /// The line as it stood, up to a bound.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Json { text, .. } => cut(text.as_bytes()),
            Self::Csv { record, header } => {
                let mut writer = csv::WriterBuilder::new()
                    .delimiter(header.separator)
                    .flexible(true)
                    .from_writer(Vec::new());
                // A Vec takes everything.
                let _ = writer.write_byte_record(record);
                cut(writer.into_inner().unwrap_or_default().trim_ascii_end())
            }
        }
    }
}

fn cut(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..KEPT).unwrap_or(bytes)).into_owned()
}

impl Encoding {
    fn text(self, bytes: &[u8]) -> Option<Cow<'_, str>> {
        match (self, std::str::from_utf8(bytes)) {
            (Self::Latin1, _) if !bytes.is_ascii() => {
                Some(bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into())
            }
            (_, Ok(text)) => Some(Cow::Borrowed(text)),
            (_, Err(_)) => None,
        }
    }
}

/// A file as a series of lines.
pub(super) enum Rows<R: Read> {
    Csv {
        reader: Box<csv::Reader<Fused<R>>>,
        left: Rc<Cell<usize>>,
        header: Header,
        record: ByteRecord,
    },
    Json {
        reader: BufReader<R>,
        number: u64,
        /// The first line, which was looked at for the names of its fields.
        first: Option<Vec<u8>>,
    },
}

impl<R: Read> std::fmt::Debug for Rows<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rows")
    }
}

/// The number of a line with its cells, or with its text where it is malformed; or what ended the reading.
type Row<'a> = Result<(u64, Result<Cells<'a>, String>), (u64, Error)>;

impl<R: Read> Rows<R> {
    pub(super) fn open(input: R, format: Format, mapping: &Mapping) -> Result<Self, ImportError> {
        if format == Format::JsonLines {
            return Ok(Self::Json {
                reader: BufReader::new(input),
                number: 0,
                first: None,
            });
        }
        let separator = mapping.separator.unwrap_or(',');
        let separator = u8::try_from(separator)
            .ok()
            .filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r'))
            .ok_or_else(|| value("separator", &separator.to_string(), "one ASCII character"))?;
        let left = Rc::new(Cell::new(MAX_LINE));
        let fused = Fused {
            inner: input,
            left: Rc::clone(&left),
        };
        let mut reader = Box::new(
            csv::ReaderBuilder::new()
                .delimiter(separator)
                .flexible(true)
                .from_reader(fused),
        );
        let mut header = Header {
            at: HashMap::new(),
            names: Vec::new(),
            encoding: mapping.encoding,
            separator,
        };
        let names = reader.byte_headers().map_err(|error| ImportError::Io {
            line: 1,
            error: io(error),
        })?;
        for (at, cell) in names.iter().enumerate() {
            let name = header
                .encoding
                .text(cell)
                .unwrap_or_else(|| String::from_utf8_lossy(cell));
            let name = name.trim().trim_start_matches('\u{feff}').to_owned();
            let _ = header.at.entry(name.clone()).or_insert(at);
            header.names.push(name);
        }
        Ok(Self::Csv {
            reader,
            left,
            header,
            record: ByteRecord::new(),
        })
    }

    /// The columns; `None` for a file without any line of JSON.
    pub(super) fn columns(&mut self) -> Result<Option<Columns>, ImportError> {
        match self {
            Self::Csv { header, .. } if header.names.iter().all(String::is_empty) => Err(MappingError::Empty.into()),
            Self::Csv { header, .. } => Ok(Some(Columns {
                names: header.names.clone(),
                fixed: true,
            })),
            Self::Json { reader, first, .. } => {
                let read = read_line(reader).map_err(|error| ImportError::Io { line: 1, error })?;
                let object: Option<Map<String, Value>> =
                    read.as_ref().and_then(|read| serde_json::from_slice(read).ok());
                *first = read;
                Ok(object.map(|object| Columns {
                    names: object.keys().cloned().collect(),
                    fixed: false,
                }))
            }
        }
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Option<Row<'_>> {
        match self {
            Self::Csv {
                reader,
                left,
                header,
                record,
            } => {
                left.set(MAX_LINE);
                let line = reader.position().line();
                match reader.read_byte_record(record) {
                    Ok(false) => None,
                    Ok(true) => {
                        let line = record.position().map_or(line, csv::Position::line);
                        Some(Ok((line, Ok(Cells::Csv { record, header }))))
                    }
                    Err(error) => Some(Err((line, io(error)))),
                }
            }
            Self::Json { reader, number, first } => loop {
                *number += 1;
                let read = match first.take() {
                    Some(first) => Ok(Some(first)),
                    None => read_line(reader),
                };
                let bytes = match read {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => return None,
                    Err(error) => return Some(Err((*number, error))),
                };
                let trimmed = bytes.trim_ascii();
                if trimmed.is_empty() {
                    continue;
                }
                let parsed = std::str::from_utf8(trimmed).ok().and_then(|text| {
                    let object: Map<String, Value> = serde_json::from_str(text).ok()?;
                    Some(Cells::Json {
                        text: text.to_owned(),
                        object,
                    })
                });
                return Some(Ok((*number, parsed.ok_or_else(|| cut(trimmed)))));
            },
        }
    }
}

fn io(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => Error::new(ErrorKind::InvalidData, format!("{other:?}")),
    }
}

/// One line without its end, at most [`MAX_LINE`] bytes of it and one more; the rest of a longer one is passed over.
fn read_line(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut met = false;
    loop {
        let chunk = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            return Ok(met.then_some(line));
        }
        met = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let room = (MAX_LINE + 1).saturating_sub(line.len());
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        let used = end.map_or(chunk.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            // Longer than a line may be: cut short, it is no JSON any more.
            return Ok(Some(line));
        }
    }
}

/// A reader that fails when one line has taken more than it may, rather than keep a file in memory whose quote is open.
#[derive(Debug)]
pub(super) struct Fused<R> {
    inner: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Fused<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            let said = "the line is longer than 1 MiB; is there a quote that is not closed?";
            return Err(Error::new(ErrorKind::InvalidData, said));
        }
        let size = into.len().min(left);
        let read = self.inner.read(into.get_mut(..size).unwrap_or_default())?;
        self.left.set(left - read);
        Ok(read)
    }
}
