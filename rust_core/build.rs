//! Hashes the crate's own sources into `HFT_CORE_SOURCE_HASH`, so that a verdict can name the
//! compiled code it was computed with.
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Writes the kept record schemas as one table, so that keeping one means adding a file.
fn embed_schemas() {
    let mut kept: Vec<PathBuf> = std::fs::read_dir("schemas")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    kept.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    kept.sort();
    let mut table = String::from("pub(crate) const KEPT: &[(&str, &str)] = &[\n");
    for path in &kept {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        table += &format!("    ({name:?}, {text:?}),\n");
    }
    table += "];\n";
    let home = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
    if let Err(error) = std::fs::write(home.join("kept_schemas.rs"), table) {
        println!("cargo:warning=kept_schemas.rs cannot be written: {error}");
    }
    println!("cargo:rerun-if-changed=schemas");
}

fn main() {
    embed_schemas();
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.sort();
    let mut digest = Sha256::new();
    for file in &files {
        digest.update(file.to_string_lossy().as_bytes());
        digest.update([0]);
        digest.update(std::fs::read(file).unwrap_or_default());
        digest.update([0]);
    }
    let hex: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    println!("cargo:rustc-env=HFT_CORE_SOURCE_HASH={hex}");
    let profile = std::env::var("PROFILE").unwrap_or_default();
    println!("cargo:rustc-env=HFT_CORE_PROFILE={profile}");
    println!("cargo:rerun-if-changed=src");
}
