//! The committed fatbins: made from the sources that lie beside them, complete, and without the faults that no result shows.
//! Needs neither CUDA nor Python: everything is read from `fatbin/manifest.json`, the sources and the container's headers.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

const FIX: &str = "run `npm run kernels:build`";

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest() -> Value {
    let path = crate_folder().join("fatbin/manifest.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}: {FIX}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}: {FIX}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files below a folder with one of the extensions, by their path in it.
fn files(folder: &Path, extensions: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        let entries = fs::read_dir(&at).unwrap_or_else(|error| panic!("{}: {error}: {FIX}", at.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
                let parts: PathBuf = path.strip_prefix(folder).unwrap().into();
                found.insert(parts.to_str().unwrap().replace('\\', "/"), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn sources() -> BTreeMap<String, Vec<u8>> {
    files(&crate_folder().join("src/cuda"), &["cu", "cuh"])
}

fn fatbins() -> BTreeMap<String, Vec<u8>> {
    files(&crate_folder().join("fatbin"), &["fatbin"])
}

/// Names on which two maps disagree.
fn differences(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> BTreeSet<String> {
    left.keys().chain(right.keys()).filter(|name| left.get(*name) != right.get(*name)).cloned().collect()
}

fn hashes(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    files.iter().map(|(name, bytes)| (name.clone(), sha256(bytes))).collect()
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("the manifest holds {value} where an object belongs: {FIX}"))
}

fn words(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The number behind `sm_` or `compute_`.
fn architecture(name: &str) -> u32 {
    name.rsplit('_').next().unwrap().trim_end_matches('a').parse().unwrap()
}

/// What a source or a fatbin holds machine code or PTX (`kind`) for: Hopper's own kernels run on Hopper alone.
fn architectures(manifest: &Value, name: &str, kind: &str) -> BTreeSet<String> {
    if !Path::new(name).file_stem().unwrap().to_str().unwrap().ends_with("_sm90a") {
        return words(&manifest[kind]);
    }
    if kind == "sass" { ["sm_90a".to_owned()].into() } else { BTreeSet::new() }
}

#[test]
fn sources_are_those_that_were_compiled() {
    let manifest = manifest();
    let compiled =
        object(&manifest["sources"]).iter().map(|(name, hash)| (name.clone(), hash.as_str().unwrap().into()));
    let changed = differences(&hashes(&sources()), &compiled.collect());
    assert!(changed.is_empty(), "CUDA sources changed since the fatbins were built: {changed:?}: {FIX}");
}

#[test]
fn fatbins_are_those_of_the_manifest() {
    let manifest = manifest();
    let built = object(&manifest["fatbins"])
        .iter()
        .map(|(name, entry)| (name.clone(), entry["sha256"].as_str().unwrap().into()));
    let built: BTreeMap<String, String> = built.collect();
    let changed = differences(&hashes(&fatbins()), &built);
    assert!(changed.is_empty(), "fatbins do not belong to the manifest: {changed:?}: {FIX}");
    let modules = sources().into_keys().filter_map(|name| Some(format!("{}.fatbin", name.strip_suffix(".cu")?)));
    assert_eq!(modules.collect::<BTreeSet<_>>(), built.into_keys().collect(), "one fatbin for each .cu file: {FIX}");
}

/// Source text without comments, which may name kernels too.
fn without_comments(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(start) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        code.push_str(&rest[..start]);
        let end = if rest[start..].starts_with("//") { "\n" } else { "*/" };
        rest = rest[start + 2..].split_once(end).map_or("", |(_, behind)| behind);
        code.push('\n');
    }
    code + rest
}

/// Names of the kernels that a source defines, in order.
fn kernels(source: &str) -> Vec<String> {
    let code = without_comments(source).split_whitespace().collect::<Vec<_>>().join(" ");
    let definitions = code.split("extern \"C\" __global__").skip(1).map(|behind| {
        let mut brackets = behind.match_indices('(').map(|(at, _)| {
            let before = behind[..at].trim_end();
            before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()
        });
        brackets.find(|word| *word != "__launch_bounds__").unwrap().to_owned()
    });
    let found: Vec<String> = definitions.collect();
    let all = code.matches("__global__").count();
    assert_eq!(found.len(), all, "a kernel is not `extern \"C\" __global__`, so that no name finds it: {found:?}");
    found
}

#[test]
fn kernels_are_found_in_sources() {
    let source = r#"
        // extern "C" __global__ void in_a_comment(int)
        /* extern "C" __global__ void in_another(int) */
        extern "C" __global__ void __launch_bounds__(128, 2)
        first(float* x) { x[0] = 1; }  // a note
        extern "C" __global__ __launch_bounds__(64) void second (int n) {}
        extern "C" __global__ void third(int n) { first_step(n); }
    "#;
    assert_eq!(kernels(source), ["first", "second", "third"]);
}

#[test]
fn every_kernel_is_compiled_for_every_architecture() {
    let manifest = manifest();
    let mut defined = BTreeMap::new();
    for (name, bytes) in sources() {
        for kernel in kernels(&String::from_utf8(bytes).unwrap()) {
            let other = defined.insert(kernel.clone(), name.clone());
            assert_eq!(other, None, "{kernel} is defined in {name} too");
        }
    }
    assert!(!defined.is_empty(), "no kernels found");
    let built = object(&manifest["kernels"]);
    let extra: Vec<_> = built.keys().filter(|name| !defined.contains_key(*name)).collect();
    assert!(extra.is_empty(), "kernels without a source: {extra:?}: {FIX}");
    for (kernel, source) in defined {
        let entry = built.get(&kernel).unwrap_or_else(|| panic!("{kernel} of {source} is in no fatbin: {FIX}"));
        let missing: Vec<_> =
            architectures(&manifest, &source, "sass").into_iter().filter(|arch| entry.get(arch).is_none()).collect();
        assert!(missing.is_empty(), "{kernel} of {source} lacks {missing:?}: {FIX}");
    }
}

fn count(entry: &Value, name: &str) -> u64 {
    entry[name].as_u64().unwrap_or_else(|| panic!("no count of {name} in {entry}: {FIX}"))
}

#[test]
fn nothing_spills() {
    for (kernel, architectures) in object(&manifest()["kernels"]) {
        for (arch, entry) in object(architectures) {
            for fault in ["spill_stores", "spill_loads", "ldl", "stl"] {
                assert_eq!(count(entry, fault), 0, "{kernel} for {arch}: {fault}");
            }
        }
    }
}

#[test]
fn tensor_cores_are_used_where_they_must_be() {
    let manifest = manifest();
    let mut checked = 0;
    for rule in manifest["required"].as_array().unwrap() {
        let prefix = rule["kernels"].as_str().unwrap().strip_suffix('*').unwrap();
        let instruction = rule["instruction"].as_str().unwrap();
        for (kernel, architectures) in object(&manifest["kernels"]).iter().filter(|(name, _)| name.starts_with(prefix))
        {
            for (arch, entry) in object(architectures) {
                if u64::from(architecture(arch)) >= count(rule, "from") {
                    assert!(
                        count(entry, &instruction.to_lowercase()) > 0,
                        "{kernel} for {arch} holds no {instruction}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 0, "the rules match no kernel");
}

/// What a fatbin holds: architectures of machine code and of PTX. Panics on a malformed container, and on compression that
/// drivers below 550 cannot read.
fn contents(name: &str, bytes: &[u8]) -> [BTreeSet<u32>; 2] {
    const MAGIC: u32 = 0xBA55_ED50;
    const ZSTD: u32 = 0x8000;
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((u32_at(0), u16_at(4), u16_at(6)), (MAGIC, 1, 16), "{name}: not a fatbin: {FIX}");
    assert_eq!(u64_at(8), bytes.len() as u64 - 16, "{name}: cut short: {FIX}");
    let [mut code, mut ptx] = [BTreeSet::new(), BTreeSet::new()];
    let mut at = 16;
    while at < bytes.len() {
        // Entry: kind (2 bytes), version (2), header bytes (4), payload bytes (8), …, architecture at 28, …, flags at 40.
        let arch = u32_at(at + 28);
        assert_eq!(u32_at(at + 40) & ZSTD, 0, "{name}: {arch} is compressed with zstd, which needs driver 550");
        let new = match u16_at(at) {
            1 => ptx.insert(arch),
            2 => code.insert(arch),
            kind => panic!("{name}: an entry of kind {kind}: {FIX}"),
        };
        assert!(new, "{name}: two entries for {arch}: {FIX}");
        at += u32_at(at + 4) as usize + usize::try_from(u64_at(at + 8)).unwrap();
    }
    assert_eq!(at, bytes.len(), "{name}: the last entry is cut short: {FIX}");
    [code, ptx]
}

#[test]
fn containers_hold_every_architecture() {
    let manifest = manifest();
    for (name, bytes) in fatbins() {
        let wanted = ["sass", "ptx"]
            .map(|kind| architectures(&manifest, &name, kind).iter().map(|name| architecture(name)).collect());
        assert_eq!(contents(&name, &bytes), wanted, "{name} holds other architectures than the manifest says: {FIX}");
    }
}
