//! A schema's text, parsed: version, header and layouts. Strict: what does not cover every byte of
//! a record exactly once is no schema.

use std::fmt;

use crate::record::SCALE;

/// Kind of a field's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// `i`.
    Signed,
    /// `u`.
    Unsigned,
    /// `f`.
    Float,
    /// `V`: bytes.
    Bytes,
    /// `S`: ASCII, zero-padded.
    Text,
}

impl ItemKind {
    fn letter(self) -> char {
        match self {
            Self::Signed => 'i',
            Self::Unsigned => 'u',
            Self::Float => 'f',
            Self::Bytes => 'V',
            Self::Text => 'S',
        }
    }
}

/// A numpy format: how many items, of which kind, of how many bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaFormat {
    /// Items.
    pub count: usize,
    /// Their kind.
    pub kind: ItemKind,
    /// Bytes of one.
    pub item: usize,
}

impl SchemaFormat {
    /// Bytes of all items.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.count * self.item
    }

    fn parse(text: &str) -> Option<Self> {
        let (count, item) = match text.strip_prefix('(') {
            Some(rest) => {
                let (count, item) = rest.split_once(",)")?;
                (count.parse().ok()?, item)
            }
            None => (1, text),
        };
        let plain = item.strip_prefix('<').unwrap_or(item);
        let mut letters = plain.chars();
        let kind = match letters.next()? {
            'i' => ItemKind::Signed,
            'u' => ItemKind::Unsigned,
            'f' => ItemKind::Float,
            'V' => ItemKind::Bytes,
            'S' => ItemKind::Text,
            _ => return None,
        };
        let item: usize = letters.as_str().parse().ok()?;
        let is_allowed = match kind {
            ItemKind::Signed | ItemKind::Unsigned => matches!(item, 1 | 2 | 4 | 8),
            ItemKind::Float => matches!(item, 4 | 8),
            ItemKind::Bytes | ItemKind::Text => (1..=1024).contains(&item),
        };
        (is_allowed && (1..=1024).contains(&count)).then_some(Self { count, kind, item })
    }
}

impl fmt::Display for SchemaFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count > 1 {
            write!(out, "({},)", self.count)?;
        }
        write!(out, "{}{}", self.kind.letter(), self.item)
    }
}

/// One field of a kept schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaField {
    /// Its name.
    pub name: String,
    /// Its format.
    pub format: SchemaFormat,
    /// Bytes from the start of the record.
    pub offset: usize,
}

/// One record type of a kept schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaType {
    /// Its name.
    pub name: String,
    /// Its type code.
    pub code: u8,
    /// Size of a record.
    pub bytes: usize,
    /// Fields behind the header.
    pub fields: Vec<SchemaField>,
}

/// A schema as its text says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// `RecordHeader::schema_version` of its records.
    pub version: u8,
    /// The common head.
    pub header: Vec<SchemaField>,
    /// The types, in the text's order.
    pub types: Vec<SchemaType>,
}

/// Why a text is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema text, line {line}: {what}")]
pub struct SchemaFault {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl Schema {
    /// Parses a text as [`crate::record::schema_text`] writes it.
    ///
    /// # Errors
    /// [`SchemaFault`] with the line.
    pub fn parse(text: &str) -> Result<Self, SchemaFault> {
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let fault = |line, what| SchemaFault { line, what };
        let version = lines
            .next()
            .and_then(|(_, line)| line.strip_prefix("record schema "))
            .and_then(|rest| rest.split_once(" scale "))
            .filter(|(_, scale)| scale.parse() == Ok(SCALE))
            .and_then(|(version, _)| version.parse().ok())
            .ok_or(fault(1, "is not `record schema <version> scale <scale>`"))?;
        let mut types: Vec<SchemaType> = Vec::new();
        let mut last_line = 1;
        for (at, line) in lines {
            last_line = at;
            if let Some(field) = line.strip_prefix("  ") {
                let home = types
                    .last_mut()
                    .ok_or(fault(at, "a field without a type"))?;
                home.fields
                    .push(field_of(field).ok_or(fault(at, "is no field"))?);
            } else {
                types.push(type_of(line).ok_or(fault(at, "is no type"))?);
            }
        }
        let fault = |what| SchemaFault {
            line: last_line,
            what,
        };
        if types.is_empty() {
            return Err(fault("there is no header"));
        }
        let header = types.remove(0);
        if (header.name.as_str(), header.code) != ("Header", 0) {
            return Err(fault("the first type is not the header"));
        }
        let schema = Self {
            version,
            header: header.fields,
            types,
        };
        schema.check(header.bytes).map_err(fault)?;
        Ok(schema)
    }

    fn check(&self, header_bytes: usize) -> Result<(), &'static str> {
        covers(&self.header, 0, header_bytes)?;
        // The three fields that tell what a record is must be readable before its schema is known.
        let first = [
            "record_bytes u2 0",
            "record_type u1 2",
            "schema_version u1 3",
        ];
        for (field, expected) in self.header.iter().zip(first) {
            if format!("{} {} {}", field.name, field.format, field.offset) != expected {
                return Err("the header does not start with size, type and version");
            }
        }
        for needed in ["input_seq", "sequence_time_ns"] {
            let is_there = self
                .header
                .iter()
                .any(|field| field.name == needed && field.format.bytes() == 8);
            if !is_there {
                return Err("the header lacks input_seq or sequence_time_ns of 8 bytes");
            }
        }
        for (at, record) in self.types.iter().enumerate() {
            covers(&record.fields, header_bytes, record.bytes)?;
            let is_double = self
                .types
                .iter()
                .skip(at + 1)
                .any(|other| other.code == record.code || other.name == record.name);
            if is_double {
                return Err("a type's name or code stands twice");
            }
        }
        Ok(())
    }

    /// Whether `record`, or the header when it is `Header`, has a field of that name.
    pub(super) fn has_field(&self, record: &str, field: &str) -> bool {
        let named = |fields: &[SchemaField]| fields.iter().any(|known| known.name == field);
        if record == "Header" {
            return named(&self.header);
        }
        self.types
            .iter()
            .any(|known| known.name == record && named(&known.fields))
    }

    /// Where a field of the header stands.
    pub(super) fn header_offset(&self, name: &str) -> Result<usize, SchemaFault> {
        self.header
            .iter()
            .find(|field| field.name == name)
            .map(|field| field.offset)
            .ok_or(SchemaFault {
                line: 2,
                what: "the header lacks a field that every record needs",
            })
    }
}

/// Whether the fields stand back to back from `start` to `end`, and `end` is a multiple of 8.
fn covers(fields: &[SchemaField], start: usize, end: usize) -> Result<(), &'static str> {
    let mut next = start;
    for (at, field) in fields.iter().enumerate() {
        if field.offset != next {
            return Err("a field does not start where the one before it ends");
        }
        if fields
            .iter()
            .skip(at + 1)
            .any(|other| other.name == field.name)
        {
            return Err("a field's name stands twice");
        }
        next += field.format.bytes();
    }
    if next != end || !end.is_multiple_of(8) || end > usize::from(u16::MAX) {
        return Err("the fields do not end where the record does, at a multiple of 8");
    }
    Ok(())
}

fn type_of(line: &str) -> Option<SchemaType> {
    let mut words = line.split(' ');
    let record = SchemaType {
        name: words.next().filter(|name| !name.is_empty())?.to_owned(),
        code: words.next()?.parse().ok()?,
        bytes: words.next()?.parse().ok()?,
        fields: Vec::new(),
    };
    words.next().is_none().then_some(record)
}

fn field_of(line: &str) -> Option<SchemaField> {
    let mut words = line.split(' ');
    let field = SchemaField {
        offset: words.next()?.parse().ok()?,
        format: SchemaFormat::parse(words.next()?)?,
        name: words.next().filter(|name| !name.is_empty())?.to_owned(),
    };
    words.next().is_none().then_some(field)
}
