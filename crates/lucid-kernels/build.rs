//! Lists the CUDA kernels and their committed fatbins for the backend. With the feature `cuda-shim` it also compiles the
//! kernels as C++ that runs on the CPU (see shim/shim.h).
//!
//! `LUCID_SHIM_SANITIZE` = `address` or `thread` instruments the kernels (not the runtime that switches their threads).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/cuda");
    println!("cargo:rerun-if-changed=fatbin");
    let sources = sources();
    written("modules.rs", &modules(&sources));
    #[cfg(feature = "cuda-shim")]
    shim::build(&sources);
}

/// A `.cu` file.
struct Source {
    path: PathBuf,
    name: String,
    /// Its kernels, in order.
    kernels: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let entries = fs::read_dir(root.join("src/cuda")).expect("the kernels' folder");
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    paths.sort();
    let source = |path: PathBuf| {
        let kernels = kernels(&fs::read_to_string(&path).expect("a kernel's source"));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        Source { path, name, kernels }
    };
    paths.into_iter().map(source).collect()
}

/// Whether a source is for sm_90a alone, with instructions that the shim does not know.
fn hopper(name: &str) -> bool {
    name.ends_with("_sm90a")
}

/// Names of the kernels of a source.
fn kernels(source: &str) -> Vec<String> {
    let after = source.split("extern \"C\" __global__ void").skip(1);
    let name = |text: &str| {
        let text = text.trim_start();
        // Launch bounds stand between the type and the name.
        let text = match text.strip_prefix("__launch_bounds__(") {
            Some(bounds) => bounds.split_once(')')?.1.trim_start(),
            None => text,
        };
        Some(text.split_once('(')?.0.trim().to_owned())
    };
    after.filter_map(name).collect()
}

/// The table of fatbins: Rust for src/cuda/fatbin.rs.
fn modules(sources: &[Source]) -> String {
    let mut text = String::from("pub static MODULES: &[Module] = &[\n");
    for Source { path, name, kernels } in sources {
        let fatbin = path.with_file_name("").join("../../fatbin").join(format!("{name}.fatbin"));
        let _ = writeln!(
            text,
            "    Module {{ name: {name:?}, hopper: {}, image: &Aligned(*include_bytes!({:?})).0, kernels: &{kernels:?} }},",
            hopper(name),
            fatbin.display().to_string()
        );
    }
    text.push_str("];\n");
    text
}

/// Writes a file of OUT_DIR where it has changed.
fn written(name: &str, text: &str) -> PathBuf {
    let path = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join(name);
    if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
        fs::write(&path, text).expect("OUT_DIR can be written");
    }
    path
}

#[cfg(feature = "cuda-shim")]
mod shim {
    use std::fmt::Write as _;
    use std::path::Path;
    use std::{env, fs};

    use super::{Source, written};

    fn compiler() -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(2).debug(true).warnings(false).define("LUCID_SHIM", None);
        build.include("src/cuda/include").include("shim");
        build.flag("-fno-strict-aliasing").flag("-ffp-contract=off").flag_if_supported("-Wno-attributes");
        build
    }

    pub fn build(sources: &[Source]) {
        println!("cargo:rerun-if-changed=shim");
        println!("cargo:rerun-if-env-changed=LUCID_SHIM_SANITIZE");
        let mut files = Vec::new();
        let mut names = Vec::new();
        for Source { path, kernels, .. } in sources.iter().filter(|source| !super::hopper(&source.name)) {
            for name in kernels {
                // A file for each kernel, so that its shared memory has a section of its own. Within a namespace without
                // a name, or g++ would leave the shared memory of inline functions out of the section.
                let code = format!(
                    "#define LUCID_SHIM_SECTION {name}\n#include \"shim.h\"\nnamespace {{\n#include \"{}\"\n}}\n\
                     LUCID_SHIM_ENTRY({name})\n",
                    path.display()
                );
                files.push(written(&format!("{name}.cpp"), &code));
                names.push(name);
            }
        }
        let mut table = String::from("#include \"shim.h\"\n");
        for name in &names {
            let _ = writeln!(table, "extern \"C\" const ShimKernel lucid_shim_kernel_{name};");
        }
        table.push_str("extern \"C\" const ShimKernel* const lucid_shim_kernels[];\n");
        table.push_str("const ShimKernel* const lucid_shim_kernels[] = {\n");
        for name in &names {
            let _ = writeln!(table, "    &lucid_shim_kernel_{name},");
        }
        table.push_str("    nullptr};\n");

        let sanitize = env::var("LUCID_SHIM_SANITIZE").ok().filter(|value| !value.is_empty());
        let (flags, libraries): (&[&str], &[&str]) = match sanitize.as_deref() {
            // A cast out of range saturates on the device and is anything on the CPU.
            Some("address") => {
                (&["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"], &["asan", "ubsan"])
            }
            Some("thread") => (&["-fsanitize=thread"], &["tsan"]),
            Some(other) => panic!("LUCID_SHIM_SANITIZE is '{other}'; expected address or thread"),
            None => (&[], &[]),
        };
        // Ahead of the C++ library: AddressSanitizer must be the first that is loaded. By name, since rustc tells the
        // linker driver to add no library by itself.
        for library in libraries {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
        let mut instrumented = compiler();
        instrumented.flag_if_supported("-fwhole-program").files(files);
        // Each variable in a section of its name, by which `refuse_shared_in_templates` finds it.
        instrumented.flag("-fdata-sections");
        let mut runtime = compiler();
        runtime.file("shim/shim.cpp").file("shim/tensor.cpp").file(written("lucid_shim_table.cpp", &table));
        if let Some(sanitizer) = &sanitize {
            instrumented.flag("-fno-omit-frame-pointer");
            runtime.define(&format!("LUCID_SHIM_{}", sanitizer.to_uppercase()), None);
        }
        for flag in flags {
            instrumented.flag(flag);
        }
        if sanitize.as_deref() == Some("address") {
            instrumented.flag_if_supported("-fsanitize-sections=cushared*");
        }
        let objects = instrumented.compile_intermediates();
        for object in &objects {
            refuse_shared_in_templates(object);
        }
        // One archive: the runtime's table names the kernels, and the kernels call the runtime.
        runtime.objects(objects).compile("lucid_shim");
    }

    /// g++ puts the static variables of a template into the common data whatever section they name, where they would be
    /// neither filled before a block nor counted.
    fn refuse_shared_in_templates(object: &Path) {
        let bytes = fs::read(object).expect("a compiled kernel");
        for prefix in [".bss._ZZ", ".data._ZZ"] {
            let Some(start) = bytes.windows(prefix.len()).position(|window| window == prefix.as_bytes()) else {
                continue;
            };
            let name = bytes[start..].split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            panic!(
                "{}: {name} is `__shared__` (or static) in a template, which g++ cannot put into the section for shared \
                 memory; declare it in the kernel and pass a pointer",
                object.display()
            );
        }
    }
}
