//! Records of an earlier schema, brought into today's layouts field by field, by name.
//!
//! Why: a log outlives the build that wrote it. What a layout was is kept as text in
//! `rust_core/schemas/`, so an old record is read by what it says it is and never guessed at.
//!
//! Invariants:
//! 1. Every schema this repository ever had is kept; a file's name carries the first eight digits
//!    of its content's SHA-256, and the current schema is among them.
//! 2. A field keeps its value; a field that is new is zero, or what a rule declares. A field that
//!    is gone, has another format or another type code is an error unless a rule says how.
//! 3. A record of today's schema is never touched: it has no plan.
//! 4. An upgraded record has the size, the type code and the version of the new schema.
//!
//! It reads no files and knows no segments (see `wal`). Operator's page: `docs/formats.md`.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::record::{self, RecordHeader, SCHEMA_VERSION, TapeError};

mod schema;

#[cfg(test)]
pub(crate) mod tests;

pub use schema::{ItemKind, Schema, SchemaFault, SchemaField, SchemaFormat, SchemaType};

// Written by the build script: `pub(crate) const KEPT: &[(&str, &str)]`, file name and text.
include!(concat!(env!("OUT_DIR"), "/kept_schemas.rs"));

/// How a field that has no namesake of its own format comes about; `record` is a type's name, or
/// `Header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Record type, or `Header`.
    pub record: &'static str,
    /// Field of the new schema; for [`RuleKind::Dropped`] of the old one.
    pub field: &'static str,
    /// What is done.
    pub kind: RuleKind,
}

/// What a [`Rule`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// A new field holds this number in every item instead of zero.
    Default(i64),
    /// The field was called so before.
    RenamedFrom(&'static str),
    /// The format grew: numbers keep their value and sign, bytes and further items are zero.
    Widened,
    /// The old field is not needed any more.
    Dropped,
}

/// Rules between the kept schemas and today's. None is needed so far: layouts only came to be.
pub const RULES: &[Rule] = &[];

/// Why one schema cannot be brought into another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The text is no schema.
    #[error(transparent)]
    Schema(#[from] SchemaFault),
    /// A type is gone or has another code.
    #[error("record type {record} (code {code}) is not in the newer schema under that code")]
    TypeGone {
        /// Its name.
        record: String,
        /// Its code.
        code: u8,
    },
    /// A field is gone and no rule drops it.
    #[error("field {record}.{field} is gone and no rule says where to")]
    FieldGone {
        /// Record type.
        record: String,
        /// Field of the older schema.
        field: String,
    },
    /// A field has another format and no rule that fits widens it.
    #[error("field {record}.{field} was {was} and is {is}; no rule says how")]
    Retyped {
        /// Record type.
        record: String,
        /// Field.
        field: String,
        /// Format in the older schema.
        was: String,
        /// Format in the newer one.
        is: String,
    },
    /// A rule that matches nothing, or a default that does not fit.
    #[error("rule for {record}.{field} does not fit: {what}")]
    Rule {
        /// Record type.
        record: String,
        /// Field.
        field: String,
        /// Why.
        what: &'static str,
    },
}

/// What a reader must know of an old record before it is upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeadPlaces {
    input_seq: usize,
    sequence_time_ns: usize,
}

/// One step of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// Bytes that stay as they are.
    Copy {
        from: usize,
        to: usize,
        bytes: usize,
    },
    /// Integers of `from_item` bytes that become integers of `to_item` bytes.
    Widen {
        from: usize,
        to: usize,
        count: usize,
        from_item: usize,
        to_item: usize,
        is_signed: bool,
    },
    /// `f4` that become `f8`.
    WidenFloat {
        from: usize,
        to: usize,
        count: usize,
    },
}

/// How records of one type are upgraded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TypePlan {
    from_bytes: usize,
    /// The new record without any old value: zeros, declared defaults, size, type and version.
    template: Vec<u8>,
    /// In the order of the old record.
    moves: Vec<Move>,
    /// Old and new bytes are the same.
    is_verbatim: bool,
}

/// How records of one schema become records of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    from_version: u8,
    head: HeadPlaces,
    /// By type code of the older schema.
    plans: Vec<Option<TypePlan>>,
}

impl Upgrade {
    /// Plans the way from one schema to another.
    ///
    /// # Errors
    /// [`PlanError`] naming the field or type that no rule covers, or the rule that fits nothing.
    pub fn between(from: &Schema, to: &Schema, rules: &[Rule]) -> Result<Self, PlanError> {
        plan::check_rules(from, to, rules)?;
        let mut plans: Vec<Option<TypePlan>> = vec![None; usize::from(u8::MAX) + 1];
        for old in &from.types {
            let new = to
                .types
                .iter()
                .find(|new| new.name == old.name && new.code == old.code)
                .ok_or_else(|| PlanError::TypeGone {
                    record: old.name.clone(),
                    code: old.code,
                })?;
            if let Some(place) = plans.get_mut(usize::from(old.code)) {
                *place = Some(plan::type_plan((from, old), (to, new), rules)?);
            }
        }
        Ok(Self {
            from_version: from.version,
            head: HeadPlaces {
                input_seq: from.header_offset("input_seq")?,
                sequence_time_ns: from.header_offset("sequence_time_ns")?,
            },
            plans,
        })
    }

    /// The one record in `bytes`, upgraded behind what `out` holds. The head that comes back has
    /// the old record's type, sequence and time, and its old size.
    ///
    /// # Errors
    /// [`TapeError`] when the bytes are not one record of the older schema; `out` is unchanged.
    pub fn append(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<RecordHeader, TapeError> {
        let head = self.head_of(bytes)?;
        let plan = self.plan_of(head.record_type);
        let Some(plan) = plan.filter(|plan| plan.from_bytes == bytes.len()) else {
            return Err(unknown(&head));
        };
        if plan.is_verbatim {
            out.extend_from_slice(bytes);
            return Ok(head);
        }
        let start = out.len();
        out.extend_from_slice(&plan.template);
        let new = out.get_mut(start..).unwrap_or_default();
        for step in &plan.moves {
            step.apply(bytes, new);
        }
        Ok(head)
    }

    fn plan_of(&self, code: u8) -> Option<&TypePlan> {
        self.plans.get(usize::from(code))?.as_ref()
    }

    /// Type, size, sequence and time of an old record, from where its own schema has them.
    fn head_of(&self, bytes: &[u8]) -> Result<RecordHeader, TapeError> {
        let torn = TapeError::TornHeader { offset: 0 };
        let read = || {
            let mut head: RecordHeader = bytemuck::Zeroable::zeroed();
            // Where these three stand is the same in every schema; `Schema::parse` holds it to that.
            head.record_bytes = u16::from_le_bytes(array_at(bytes, 0)?);
            head.record_type = *bytes.get(2)?;
            head.schema_version = *bytes.get(3)?;
            head.input_seq = u64::from_le_bytes(array_at(bytes, self.head.input_seq)?);
            head.sequence_time_ns =
                i64::from_le_bytes(array_at(bytes, self.head.sequence_time_ns)?);
            Some(head)
        };
        let head = read().ok_or(torn)?;
        let is_known = self
            .plan_of(head.record_type)
            .is_some_and(|plan| plan.from_bytes == usize::from(head.record_bytes))
            && head.schema_version == self.from_version;
        if is_known {
            Ok(head)
        } else {
            Err(unknown(&head))
        }
    }
}

fn unknown(head: &RecordHeader) -> TapeError {
    TapeError::UnknownRecord {
        offset: 0,
        record_type: head.record_type,
        schema_version: head.schema_version,
        record_bytes: head.record_bytes,
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl Move {
    /// Both sides were checked against their layouts when the plan was made.
    fn apply(self, old: &[u8], new: &mut [u8]) {
        match self {
            Self::Copy { from, to, bytes } => {
                if let (Some(old), Some(new)) =
                    (old.get(from..from + bytes), new.get_mut(to..to + bytes))
                {
                    new.copy_from_slice(old);
                }
            }
            Self::Widen {
                from,
                to,
                count,
                from_item,
                to_item,
                is_signed,
            } => {
                let items = old.get(from..from + count * from_item).unwrap_or_default();
                let places = new.get_mut(to..to + count * to_item).unwrap_or_default();
                for (item, place) in items
                    .chunks_exact(from_item)
                    .zip(places.chunks_exact_mut(to_item))
                {
                    let is_negative = is_signed && item.last().is_some_and(|byte| byte & 0x80 != 0);
                    place.fill(if is_negative { 0xff } else { 0 });
                    if let Some(low) = place.get_mut(..from_item) {
                        low.copy_from_slice(item);
                    }
                }
            }
            Self::WidenFloat { from, to, count } => {
                let items = old.get(from..from + count * 4).unwrap_or_default();
                let places = new.get_mut(to..to + count * 8).unwrap_or_default();
                for (item, place) in items.chunks_exact(4).zip(places.chunks_exact_mut(8)) {
                    let value = f32::from_le_bytes(item.try_into().unwrap_or_default());
                    place.copy_from_slice(&f64::from(value).to_le_bytes());
                }
            }
        }
    }
}

/// An earlier schema, and the way from it to today's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierSchema {
    /// Its version.
    pub version: u8,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// How its records are read now, or why they cannot be.
    pub upgrade: Result<Upgrade, PlanError>,
}

/// What the records of a segment are laid out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentSchema {
    /// Today's.
    Current,
    /// One that is kept.
    Earlier(&'static EarlierSchema),
}

impl SegmentSchema {
    /// The schema of a version and hash, `None` when none of ours has both.
    #[must_use]
    pub fn find(version: u32, hash: &[u8; 32]) -> Option<Self> {
        if version == u32::from(SCHEMA_VERSION) && *hash == *CURRENT_HASH {
            return Some(Self::Current);
        }
        EARLIER
            .iter()
            .find(|kept| u32::from(kept.version) == version && kept.hash == *hash)
            .map(Self::Earlier)
    }

    /// Its version.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Current => SCHEMA_VERSION,
            Self::Earlier(schema) => schema.version,
        }
    }

    /// SHA-256 of its text.
    #[must_use]
    pub fn hash(self) -> [u8; 32] {
        match self {
            Self::Current => *CURRENT_HASH,
            Self::Earlier(schema) => schema.hash,
        }
    }
}

static CURRENT_HASH: LazyLock<[u8; 32]> = LazyLock::new(record::schema_hash);

/// The kept schemas but today's. A text that is no schema is left out here; a test finds it.
static EARLIER: LazyLock<Vec<EarlierSchema>> = LazyLock::new(|| {
    let to = Schema::parse(&record::schema_text());
    KEPT.iter()
        .filter_map(|(_, text)| {
            let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
            let from = Schema::parse(text).ok()?;
            (hash != *CURRENT_HASH).then(|| EarlierSchema {
                version: from.version,
                hash,
                upgrade: to
                    .as_ref()
                    .map_err(|fault| PlanError::Schema(fault.clone()))
                    .and_then(|to| Upgrade::between(&from, to, RULES)),
            })
        })
        .collect()
});

/// The schemas that are kept beside today's, as (version, SHA-256).
#[must_use]
pub fn earlier_schemas() -> &'static [EarlierSchema] {
    &EARLIER
}

mod plan {
    //! Makes plans; nothing here runs while records are read.

    use super::{
        ItemKind, Move, PlanError, Rule, RuleKind, Schema, SchemaField, SchemaType, TypePlan,
    };

    /// Filled in from the template: they say what the record is now.
    const OWN_FIELDS: [&str; 2] = ["record_bytes", "schema_version"];

    /// Every rule names something that is there; a rule for nothing is a typing error.
    pub(super) fn check_rules(from: &Schema, to: &Schema, rules: &[Rule]) -> Result<(), PlanError> {
        for rule in rules {
            let schema = if rule.kind == RuleKind::Dropped {
                from
            } else {
                to
            };
            if !schema.has_field(rule.record, rule.field) {
                return Err(misfit(rule, "there is no such field"));
            }
        }
        Ok(())
    }

    pub(super) fn type_plan(
        (from, old): (&Schema, &SchemaType),
        (to, new): (&Schema, &SchemaType),
        rules: &[Rule],
    ) -> Result<TypePlan, PlanError> {
        let mut plan = TypePlan {
            from_bytes: old.bytes,
            template: vec![0; new.bytes],
            moves: Vec::new(),
            is_verbatim: false,
        };
        fields(("Header", &from.header, &to.header), rules, &mut plan)?;
        fields((&old.name, &old.fields, &new.fields), rules, &mut plan)?;
        let size = u16::try_from(new.bytes).unwrap_or(u16::MAX).to_le_bytes();
        for (place, byte) in plan
            .template
            .iter_mut()
            .zip([size[0], size[1], new.code, to.version])
        {
            *place = byte;
        }
        plan.is_verbatim = from.version == to.version
            && old.bytes == new.bytes
            && (&from.header, &old.fields) == (&to.header, &new.fields);
        plan.moves = joined(&plan.moves);
        Ok(plan)
    }

    fn rules_of<'a>(
        rules: &'a [Rule],
        record: &'a str,
        field: &'a SchemaField,
        is_old: bool,
    ) -> impl Iterator<Item = &'a Rule> {
        rules.iter().filter(move |rule| {
            rule.record == record
                && rule.field == field.name
                && (rule.kind == RuleKind::Dropped) == is_old
        })
    }

    fn fields(
        (record, old, new): (&str, &[SchemaField], &[SchemaField]),
        rules: &[Rule],
        plan: &mut TypePlan,
    ) -> Result<(), PlanError> {
        let mut taken = vec![false; old.len()];
        for field in new {
            let before = rules_of(rules, record, field, false)
                .find_map(|rule| match rule.kind {
                    RuleKind::RenamedFrom(name) => Some(name),
                    _ => None,
                })
                .unwrap_or(&field.name);
            let place = old.iter().position(|old| old.name == before);
            match place.and_then(|at| Some((taken.get_mut(at)?, old.get(at)?))) {
                Some((taken, old_field)) => {
                    *taken = true;
                    if OWN_FIELDS.contains(&field.name.as_str()) && record == "Header" {
                        continue;
                    }
                    let widened = rules_of(rules, record, field, false)
                        .any(|rule| rule.kind == RuleKind::Widened);
                    plan.moves.push(step(record, old_field, field, widened)?);
                }
                None => {
                    for rule in rules_of(rules, record, field, false) {
                        fill(rule, field, &mut plan.template)?;
                    }
                }
            }
        }
        match old.iter().zip(&taken).find(|(field, taken)| {
            !**taken && rules_of(rules, record, field, true).next().is_none()
        }) {
            None => Ok(()),
            Some((field, _)) => Err(PlanError::FieldGone {
                record: record.to_owned(),
                field: field.name.clone(),
            }),
        }
    }

    fn step(
        record: &str,
        old: &SchemaField,
        new: &SchemaField,
        is_widened: bool,
    ) -> Result<Move, PlanError> {
        if old.format == new.format {
            return Ok(Move::Copy {
                from: old.offset,
                to: new.offset,
                bytes: old.format.bytes(),
            });
        }
        let (was, is) = (old.format, new.format);
        let grows = was.kind == is.kind && was.item <= is.item && was.count <= is.count;
        if !is_widened || !grows {
            return Err(PlanError::Retyped {
                record: record.to_owned(),
                field: new.name.clone(),
                was: was.to_string(),
                is: is.to_string(),
            });
        }
        let (from, to, count) = (old.offset, new.offset, was.count);
        Ok(match was.kind {
            _ if was.item == is.item => Move::Copy {
                from,
                to,
                bytes: was.bytes(),
            },
            ItemKind::Float => Move::WidenFloat { from, to, count },
            kind => Move::Widen {
                from,
                to,
                count,
                from_item: was.item,
                to_item: is.item,
                is_signed: kind == ItemKind::Signed,
            },
        })
    }

    /// Writes a declared default into every item of a new field.
    fn fill(rule: &Rule, field: &SchemaField, template: &mut [u8]) -> Result<(), PlanError> {
        let RuleKind::Default(value) = rule.kind else {
            return Err(misfit(
                rule,
                "the field it speaks of is not in the older schema",
            ));
        };
        let format = field.format;
        let fits = match format.kind {
            ItemKind::Signed => {
                i128::from(value) >> (8 * format.item - 1) == i128::from(value) >> 64
            }
            ItemKind::Unsigned => value >= 0 && i128::from(value) >> (8 * format.item) == 0,
            _ => false,
        };
        if !fits {
            return Err(misfit(rule, "the default does not fit the field's format"));
        }
        let places = template
            .get_mut(field.offset..field.offset + format.bytes())
            .unwrap_or_default();
        for place in places.chunks_exact_mut(format.item) {
            for (byte, value) in place.iter_mut().zip(value.to_le_bytes()) {
                *byte = value;
            }
        }
        Ok(())
    }

    /// Neighbouring copies become one.
    fn joined(moves: &[Move]) -> Vec<Move> {
        let mut result: Vec<Move> = Vec::with_capacity(moves.len());
        for step in moves {
            if let (
                Some(Move::Copy { from, to, bytes }),
                Move::Copy {
                    from: next_from,
                    to: next_to,
                    bytes: more,
                },
            ) = (result.last_mut(), step)
                && (*from + *bytes, *to + *bytes) == (*next_from, *next_to)
            {
                *bytes += *more;
                continue;
            }
            result.push(*step);
        }
        result
    }

    fn misfit(rule: &Rule, what: &'static str) -> PlanError {
        PlanError::Rule {
            record: rule.record.to_owned(),
            field: rule.field.to_owned(),
            what,
        }
    }
}
