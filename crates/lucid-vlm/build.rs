//! Until the embedded backbone is there, the crate builds without it.
fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_mini)");
    println!("cargo::rerun-if-changed=mini");
    if std::path::Path::new("mini/model.safetensors").exists() {
        println!("cargo::rustc-cfg=has_mini");
    }
}
