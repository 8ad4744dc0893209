//! Generates the Rust code without any program from outside (no protoc).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["pluginregistration.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    tonic_prost_build::configure().compile_fds(protox::compile(files, ["."])?)?;
    Ok(())
}
