//! The table of checks in docs/risk.md is made from the code; this holds it there, or writes it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

use std::fmt::Write;

use _core::risk::{Applies, CHECKS, Check};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const START: &str = "<!-- checks -->\n";
const END: &str = "<!-- end of checks -->";

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{name}")).unwrap()
}

/// `PriceOutsideCollar` as `PRICE_OUTSIDE_COLLAR`.
fn constant(name: &str) -> String {
    let mut text = String::new();
    for (place, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            text.push('_');
        }
        text.extend(letter.to_uppercase());
    }
    text
}

/// What the packaged settings say for every key of the account that a check names.
fn defaults(check: &Check, settings: &str) -> String {
    let Some(keys) = check.limit.strip_prefix("account_limits.") else {
        let has_limit = check.limit.starts_with("alphas") || check.limit.starts_with("instruments");
        return if has_limit { "none" } else { "" }.to_owned();
    };
    let value = |key: &str| {
        let line = settings
            .lines()
            .find_map(|line| line.strip_prefix(&format!("  {key}: ")));
        line.unwrap_or_else(|| panic!("settings.yaml has no {key}"))
            .to_owned()
    };
    keys.split(", ").map(value).collect::<Vec<_>>().join(", ")
}

fn table() -> String {
    let settings = read("hft_platform/defaults/settings.yaml");
    let mut text = String::from(
        "| check | asks | for | codes | limit | default | source | test |\n|---|---|---|---|---|---|---|---|\n",
    );
    for check in CHECKS {
        let codes: Vec<String> = check
            .codes
            .iter()
            .map(|code| constant(&format!("{code:?}")))
            .collect();
        let applies = match check.applies {
            Applies::All => "all",
            Applies::Opening => "opening",
            Applies::Exit => "exits",
        };
        writeln!(
            text,
            "| `{}` | {} | {applies} | {} | {} | {} | {} | case `{}` |",
            check.name,
            check.asks,
            codes.join(", "),
            check.limit,
            defaults(check, &settings),
            check.source,
            check.name,
        )
        .unwrap();
    }
    text
}

#[test]
fn the_table_in_the_docs_is_the_table_of_the_code() {
    let page = read("docs/risk.md");
    let start = page.find(START).unwrap() + START.len();
    let end = page.find(END).unwrap();
    if std::env::var_os("HFT_WRITE_DOCS").is_some() {
        let written = format!("{}{}{}", &page[..start], table(), &page[end..]);
        std::fs::write(format!("{ROOT}/docs/risk.md"), written).unwrap();
        return;
    }
    assert!(
        page[start..end] == table(),
        "docs/risk.md is out of date: HFT_WRITE_DOCS=1 cargo test --test risk_docs"
    );
}

#[test]
fn every_check_that_holds_an_exit_is_justified_in_the_docs() {
    let page = read("docs/risk.md");
    let exits = page.split("## Exits").nth(1).unwrap();
    let exits = exits.split("## Several").next().unwrap();
    for check in CHECKS.iter().filter(|check| check.applies.holds(true)) {
        assert!(
            exits.contains(&format!("`{}`", check.name)),
            "{}",
            check.name
        );
    }
}

#[test]
fn every_case_that_the_docs_name_exists() {
    let cases = read("rust_core/src/risk/tests.rs");
    for check in CHECKS {
        assert!(
            cases.contains(&format!("\"{}\",", check.name)),
            "{}",
            check.name
        );
    }
}

/// A key of the config that no check and nobody else uses is a limit that limits nothing.
#[test]
fn every_limit_of_the_account_is_named_by_a_check() {
    let settings = read("hft_platform/defaults/settings.yaml");
    let limits = settings.split("\naccount_limits:\n").nth(1).unwrap();
    // The section ends where the next one begins.
    let section = limits
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let keys = section.filter_map(|line| {
        let key = line.strip_prefix("  ")?.split(':').next()?;
        (!key.starts_with('#') && !key.starts_with(' ')).then_some(key)
    });
    let mut count = 0;
    for key in keys {
        let is_used = CHECKS.iter().any(|check| {
            let named = check.limit.strip_prefix("account_limits.").unwrap_or("");
            named.split(", ").any(|name| name == key)
        });
        assert!(is_used, "account_limits.{key}");
        count += 1;
    }
    assert!(count >= 19, "{count} keys");
}
