#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use super::*;
use crate::record::{LAYOUTS, RecordLayout, layout, schema_text};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");

fn hex8(text: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hash.iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn file_name(text: &str) -> String {
    format!(
        "{}-{}.txt",
        Schema::parse(text).unwrap().version,
        hex8(text)
    )
}

/// Run by `cargo test --lib write_schema -- --ignored` when a layout changes on purpose: keeps the
/// text of today's layouts beside the earlier ones.
#[test]
#[ignore = "writes a schema file"]
fn write_schema() {
    let text = schema_text();
    std::fs::write(format!("{FOLDER}/{}", file_name(&text)), text).unwrap();
}

#[test]
fn the_schema_of_today_is_kept() {
    let (text, name) = (schema_text(), file_name(&schema_text()));
    let kept = KEPT.iter().find(|(kept, _)| *kept == name);
    let (_, kept) = kept.unwrap_or_else(|| {
        panic!("schemas/{name} is missing: cargo test --lib write_schema -- --ignored")
    });
    assert_eq!(*kept, text);
}

#[test]
fn every_kept_schema_is_what_its_name_says_and_reads_as_todays_records() {
    for (name, text) in KEPT {
        assert_eq!(file_name(text), *name, "a kept schema was edited");
        assert_eq!(text_of(&Schema::parse(text).unwrap()), *text);
    }
    let of_today = |text: &str| Schema::parse(text) == Schema::parse(&schema_text());
    let earlier = KEPT.iter().filter(|(_, text)| !of_today(text)).count();
    assert_eq!(earlier_schemas().len(), earlier);
    for earlier in earlier_schemas() {
        let upgrade = earlier.upgrade.as_ref();
        assert!(upgrade.is_ok(), "{}: {:?}", earlier.version, upgrade.err());
        let found = SegmentSchema::find(earlier.version.into(), &earlier.hash);
        assert_eq!(found, Some(SegmentSchema::Earlier(earlier)));
    }
}

/// Layouts only came to be so far: whoever drops a file drops logs that exist.
#[test]
fn the_schemas_of_the_first_logs_are_among_the_kept() {
    for first in [
        "1-bfd30187.txt",
        "1-30228ec6.txt",
        "1-5792324a.txt",
        "1-7207b67f.txt",
    ] {
        assert!(KEPT.iter().any(|(name, _)| *name == first), "{first}");
    }
}

#[test]
fn only_a_known_version_and_hash_together_are_a_schema() {
    let mut hash = crate::record::schema_hash();
    let version = u32::from(SCHEMA_VERSION);
    assert_eq!(
        SegmentSchema::find(version, &hash),
        Some(SegmentSchema::Current)
    );
    assert_eq!(SegmentSchema::find(version + 1, &hash), None);
    hash[0] ^= 1;
    assert_eq!(SegmentSchema::find(version, &hash), None);
}

/// As `record::schema_text` writes it.
pub(crate) fn text_of(schema: &Schema) -> String {
    use std::fmt::Write;
    let mut text = format!("record schema {} scale 100000000\n", schema.version);
    let mut part = |name: &str, code: u8, bytes: usize, fields: &[SchemaField]| {
        writeln!(text, "{name} {code} {bytes}").unwrap();
        for field in fields {
            let plain = field.format.to_string();
            let is_ordered = field.format.item > 1 && !plain.contains(['V', 'S']);
            let order = if is_ordered { "<" } else { "" };
            let shown = match plain.split_once(',') {
                Some((count, item)) => format!("{count},){order}{}", &item[1..]),
                None => format!("{order}{plain}"),
            };
            writeln!(text, "  {} {shown} {}", field.offset, field.name).unwrap();
        }
    };
    let header_bytes = schema.header.iter().map(|field| field.format.bytes()).sum();
    part("Header", 0, header_bytes, &schema.header);
    for one in &schema.types {
        part(&one.name, one.code, one.bytes, &one.fields);
    }
    text
}

fn today() -> Schema {
    Schema::parse(&schema_text()).unwrap()
}

fn new_field(name: &str, kind: ItemKind, item: usize) -> SchemaField {
    SchemaField {
        name: name.to_owned(),
        format: SchemaFormat {
            count: 1,
            kind,
            item,
        },
        offset: 0,
    }
}

fn fields_of<'a>(schema: &'a mut Schema, record: &str) -> &'a mut Vec<SchemaField> {
    &mut schema
        .types
        .iter_mut()
        .find(|one| one.name == record)
        .unwrap()
        .fields
}

fn field_in<'a>(schema: &'a mut Schema, record: &str, field: &str) -> &'a mut SchemaField {
    let fields = fields_of(schema, record);
    fields.iter_mut().find(|one| one.name == field).unwrap()
}

/// Offsets and sizes once more, and the strict parser's word that it is a schema.
fn laid_out(mut schema: Schema) -> Schema {
    let place = |fields: &mut [SchemaField], start: usize| {
        fields.iter_mut().fold(start, |next, field| {
            field.offset = next;
            next + field.format.bytes()
        })
    };
    let header_bytes = place(&mut schema.header, 0);
    for one in &mut schema.types {
        one.bytes = place(&mut one.fields, header_bytes);
    }
    Schema::parse(&text_of(&schema)).unwrap()
}

/// A schema 2 as one may come: a longer header, an inserted field, a widened, a renamed and a
/// dropped one, longer text, more levels, a new type.
pub(crate) fn synthetic_v2() -> (Schema, Vec<Rule>) {
    let mut v2 = today();
    v2.version = 2;
    let venue = new_field("venue_time_ns", ItemKind::Signed, 8);
    v2.header.insert(7, venue);
    let level = new_field("level_mark", ItemKind::Signed, 8);
    fields_of(&mut v2, "Trade").insert(1, level);
    for field in ["bid_price", "bid_qty", "ask_price", "ask_qty"] {
        field_in(&mut v2, "Book", field).format.count = 10;
    }
    field_in(&mut v2, "Instrument", "symbol").format.item = 32;
    field_in(&mut v2, "Command", "alpha_index").format.item = 8;
    let pad = new_field("pad", ItemKind::Unsigned, 4);
    fields_of(&mut v2, "Command").insert(1, pad);
    field_in(&mut v2, "Timer", "argument").name = "duration".to_owned();
    fields_of(&mut v2, "Health").retain(|field| field.name != "argument");
    v2.types.push(SchemaType {
        name: "Novelty".to_owned(),
        code: 200,
        bytes: 0,
        fields: vec![new_field("value", ItemKind::Signed, 8)],
    });
    let rule = |record, field, kind| Rule {
        record,
        field,
        kind,
    };
    let rules = vec![
        rule("Trade", "level_mark", RuleKind::Default(-1)),
        rule("Book", "bid_price", RuleKind::Widened),
        rule("Book", "bid_qty", RuleKind::Widened),
        rule("Book", "ask_price", RuleKind::Widened),
        rule("Book", "ask_qty", RuleKind::Widened),
        rule("Instrument", "symbol", RuleKind::Widened),
        rule("Command", "alpha_index", RuleKind::Widened),
        rule("Timer", "duration", RuleKind::RenamedFrom("argument")),
        rule("Health", "argument", RuleKind::Dropped),
    ];
    (laid_out(v2), rules)
}

/// A record of today's layout whose every byte behind size, type and version differs.
fn noisy(layout: &RecordLayout, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..layout.bytes)
        .map(|at| u8::try_from(at * 37 % 251).unwrap().wrapping_add(seed))
        .collect();
    bytes[..2].copy_from_slice(&u16::try_from(layout.bytes).unwrap().to_le_bytes());
    bytes[2] = layout.code;
    bytes[3] = SCHEMA_VERSION;
    bytes
}

fn value<'a>(record: &'a [u8], fields: &[SchemaField], name: &str) -> &'a [u8] {
    let field = fields.iter().find(|field| field.name == name).unwrap();
    &record[field.offset..field.offset + field.format.bytes()]
}

fn wide(bytes: &[u8], kind: ItemKind) -> i128 {
    let mut full = [0_u8; 16];
    full[..bytes.len()].copy_from_slice(bytes);
    if kind == ItemKind::Signed && bytes.last().unwrap() & 0x80 != 0 {
        full[bytes.len()..].fill(0xff);
    }
    i128::from_le_bytes(full)
}

#[test]
fn records_of_v1_have_equal_values_in_a_synthetic_v2() {
    let (from, (to, rules)) = (today(), synthetic_v2());
    let upgrade = Upgrade::between(&from, &to, &rules).unwrap();
    for (layout, seed) in LAYOUTS.iter().zip(1..) {
        let old = noisy(layout, seed);
        let mut new = vec![7];
        let head = upgrade.append(&old, &mut new).unwrap();
        let new = &new[1..];
        let of = |schema: &Schema| {
            schema
                .types
                .iter()
                .find(|one| one.name == layout.name)
                .unwrap()
                .clone()
        };
        let (was, is) = (of(&from), of(&to));
        assert_eq!(new.len(), is.bytes);
        assert_eq!(usize::from(u16::from_le_bytes([new[0], new[1]])), is.bytes);
        assert_eq!((new[2], new[3]), (layout.code, 2));
        assert_eq!(
            head.input_seq.to_le_bytes(),
            value(&old, &from.header, "input_seq")
        );
        for field in from.header.iter().skip(3) {
            let name = &field.name;
            assert_eq!(
                value(&old, &from.header, name),
                value(new, &to.header, name),
                "{name}"
            );
        }
        assert_eq!(value(new, &to.header, "venue_time_ns"), [0; 8]);
        for field in &was.fields {
            let name = match (layout.name, field.name.as_str()) {
                ("Health", "argument") => continue,
                ("Timer", "argument") => "duration",
                (_, name) => name,
            };
            let before = value(&old, &was.fields, &field.name);
            let after = value(new, &is.fields, name);
            let format = is
                .fields
                .iter()
                .find(|one| one.name == name)
                .unwrap()
                .format;
            for (at, item) in after.chunks(format.item).enumerate() {
                let old_item = before.chunks(field.format.item).nth(at).unwrap_or(&[0; 8]);
                if matches!(format.kind, ItemKind::Bytes | ItemKind::Text) {
                    assert!(item.starts_with(old_item), "{}.{name}", layout.name);
                    assert!(item[old_item.len()..].iter().all(|byte| *byte == 0));
                    continue;
                }
                let (new, old) = (wide(item, format.kind), wide(old_item, format.kind));
                assert_eq!(new, old, "{}.{name}[{at}]", layout.name);
            }
        }
        if layout.name == "Trade" {
            assert_eq!(value(new, &is.fields, "level_mark"), (-1_i64).to_le_bytes());
        }
    }
}

#[test]
fn a_signed_number_keeps_its_sign_and_a_float_its_value_when_they_grow() {
    let header = schema_text();
    let header = header.split("Book 1").next().unwrap();
    let with = |fields: &str| Schema::parse(&format!("{header}{fields}")).unwrap();
    let from = with("One 1 72\n  64 <i4 a\n  68 <f4 b\n");
    let to = with("One 1 80\n  64 <i8 a\n  72 <f8 b\n");
    let widened = |field| Rule {
        record: "One",
        field,
        kind: RuleKind::Widened,
    };
    let upgrade = Upgrade::between(&from, &to, &[widened("a"), widened("b")]).unwrap();
    for (number, float) in [
        (-5_i32, 1.5_f32),
        (i32::MAX, -0.25),
        (i32::MIN, f32::MAX),
        (0, 0.0),
    ] {
        let mut old = vec![0_u8; 72];
        old[0] = 72;
        old[2] = 1;
        old[3] = SCHEMA_VERSION;
        old[64..68].copy_from_slice(&number.to_le_bytes());
        old[68..72].copy_from_slice(&float.to_le_bytes());
        let mut new = Vec::new();
        upgrade.append(&old, &mut new).unwrap();
        assert_eq!(new[64..72], i64::from(number).to_le_bytes());
        assert_eq!(new[72..80], f64::from(float).to_le_bytes());
    }
}

#[test]
fn without_its_rule_a_change_is_an_error_that_names_the_field() {
    let (from, (to, rules)) = (today(), synthetic_v2());
    for (without, rule) in rules.iter().enumerate() {
        let mut fewer = rules.clone();
        fewer.remove(without);
        let outcome = Upgrade::between(&from, &to, &fewer);
        match rule.kind {
            // A default is a wish, not a need.
            RuleKind::Default(_) => assert!(outcome.is_ok()),
            RuleKind::Widened => {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(&error, PlanError::Retyped { field, .. } if field == rule.field),
                    "{error}"
                );
            }
            RuleKind::RenamedFrom(name) => assert_eq!(
                outcome.unwrap_err(),
                PlanError::FieldGone {
                    record: rule.record.into(),
                    field: name.into()
                }
            ),
            RuleKind::Dropped => assert_eq!(
                outcome.unwrap_err(),
                PlanError::FieldGone {
                    record: rule.record.into(),
                    field: rule.field.into()
                }
            ),
        }
    }
}

#[test]
fn a_rule_that_fits_nothing_and_a_type_that_is_gone_are_errors() {
    let (from, (to, rules)) = (today(), synthetic_v2());
    let with = |record, field, kind| {
        let mut more = rules.clone();
        more.push(Rule {
            record,
            field,
            kind,
        });
        Upgrade::between(&from, &to, &more).unwrap_err().to_string()
    };
    assert!(with("Trade", "prise", RuleKind::Widened).contains("no such field"));
    assert!(with("Header", "venue_time_ns", RuleKind::Widened).contains("not in the older"));
    assert!(with("Novelty", "nothing", RuleKind::Default(1)).contains("no such field"));
    assert!(with("Command", "pad", RuleKind::Default(-1)).contains("does not fit"));
    let mut narrow = today();
    field_in(&mut narrow, "Trade", "price").format.item = 4;
    field_in(&mut narrow, "Trade", "qty").format.item = 4;
    let rule = |field| Rule {
        record: "Trade",
        field,
        kind: RuleKind::Widened,
    };
    let error = Upgrade::between(&from, &laid_out(narrow), &[rule("price"), rule("qty")]);
    assert!(matches!(error.unwrap_err(), PlanError::Retyped { .. }));
    // Back from 2 to 1: what is new there is gone here.
    assert!(matches!(
        Upgrade::between(&to, &from, &[]).unwrap_err(),
        PlanError::FieldGone { .. } | PlanError::Retyped { .. }
    ));
    let mut fewer = today();
    fewer.types.retain(|one| one.name != "Timer");
    let error = Upgrade::between(&from, &laid_out(fewer), &[]).unwrap_err();
    assert_eq!(
        error,
        PlanError::TypeGone {
            record: "Timer".into(),
            code: 3
        }
    );
    let mut moved = today();
    moved
        .types
        .iter_mut()
        .find(|one| one.name == "Timer")
        .unwrap()
        .code = 99;
    assert!(Upgrade::between(&from, &laid_out(moved), &[]).is_err());
}

#[test]
fn bytes_that_are_not_one_record_of_the_older_schema_are_refused_and_leave_nothing() {
    let (from, (to, rules)) = (today(), synthetic_v2());
    let upgrade = Upgrade::between(&from, &to, &rules).unwrap();
    let good = noisy(layout(2).unwrap(), 1);
    let mut out = Vec::new();
    for length in 0..good.len() {
        assert!(
            upgrade.append(&good[..length], &mut out).is_err(),
            "{length}"
        );
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(upgrade.append(&longer, &mut out).is_err());
    for (at, byte) in [(0, 1), (2, 1), (2, 200), (3, 0xee)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert!(upgrade.append(&bad, &mut out).is_err(), "byte {at}");
    }
    assert!(out.is_empty());
    assert!(upgrade.append(&good, &mut out).is_ok());
}

#[test]
fn a_type_that_did_not_change_is_copied_whole() {
    let mut copied = 0;
    for earlier in earlier_schemas() {
        let upgrade = earlier.upgrade.as_ref().unwrap();
        for layout in LAYOUTS {
            let mut old = noisy(layout, 9);
            old[3] = earlier.version;
            let mut out = Vec::new();
            let outcome = upgrade.append(&old, &mut out);
            match upgrade.plan_of(layout.code) {
                Some(plan) if plan.is_verbatim => {
                    assert_eq!(out, old);
                    copied += 1;
                }
                Some(plan) => assert_eq!(outcome.is_ok(), plan.from_bytes == old.len()),
                // A type that came later is none of its records.
                None => assert!(outcome.is_err() && out.is_empty()),
            }
        }
    }
    // As long as only types were added, every type that was there is copied.
    assert_eq!(
        copied > 0,
        earlier_schemas()
            .iter()
            .any(|one| one.version == SCHEMA_VERSION)
    );
}

#[test]
fn a_text_that_does_not_cover_every_byte_once_is_no_schema() {
    let text = schema_text();
    let trade = format!("Trade 2 {}", layout(2).unwrap().bytes);
    for (was, is) in [
        ("record schema ", "record schema x"),
        ("scale 100000000", "scale 1000"),
        ("Header 0 64", "Header 1 64"),
        ("  0 <u2 record_bytes", "  0 <u2 record_size"),
        ("  64 <i8 price", "  72 <i8 price"),
        ("  64 <i8 price", "  64 <i4 price"),
        ("  64 <i8 price", "  64 <i3 price"),
        ("  64 <i8 price", "  64 <i8"),
        (&trade, "Trade 2 8"),
        ("Trade 2 ", "Trade 1 "),
        ("Trade 2 ", "Trade 2 1 "),
        ("<i8 qty", "<i8 price"),
        ("input_seq", "input_sequence"),
    ] {
        assert!(text.contains(was), "{was}");
        assert!(
            Schema::parse(&text.replacen(was, is, 1)).is_err(),
            "{was} -> {is}"
        );
    }
    assert!(Schema::parse("").is_err());
    assert!(Schema::parse("record schema 1 scale 100000000\n  0 <u2 a\n").is_err());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn cases() -> u32 {
        let asked = std::env::var("HFT_FUZZ_CASES").ok();
        asked.and_then(|text| text.parse().ok()).unwrap_or(200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

        /// Bytes from a disk are hostile: an answer, or an error that leaves nothing; never a panic.
        #[test]
        fn any_bytes_become_one_record_or_none(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            code in 0_u8..20,
        ) {
            let (to, rules) = synthetic_v2();
            let upgrade = Upgrade::between(&today(), &to, &rules).unwrap();
            if let Some(layout) = layout(code) && bytes.len() >= 8 {
                bytes.resize(layout.bytes, 3);
                bytes[..2].copy_from_slice(&u16::try_from(layout.bytes).unwrap().to_le_bytes());
                bytes[2] = code;
                bytes[3] = SCHEMA_VERSION;
            }
            let mut out = Vec::new();
            match upgrade.append(&bytes, &mut out) {
                Ok(head) => {
                    let new = to.types.iter().find(|one| one.code == head.record_type).unwrap();
                    prop_assert_eq!(out.len(), new.bytes);
                    prop_assert_eq!(out[3], 2);
                }
                Err(_) => prop_assert!(out.is_empty()),
            }
        }

        /// A text with one part damaged is a schema or an error; never a panic.
        #[test]
        fn any_damage_of_a_schema_text_is_survived(at in any::<prop::sample::Index>(), with in "[ -~\n]{0,3}") {
            let mut text = schema_text();
            let at = at.index(text.len());
            text.replace_range(at..=at, &with);
            if let Ok(schema) = Schema::parse(&text) {
                let _outcome = Upgrade::between(&today(), &schema, &[]);
            }
        }
    }
}
