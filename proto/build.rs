//! Generates the Rust code without any program from outside (no protoc).
//!
//! Messages with secret fields get a `Debug` of their own that hides them: nobody has to remember it at a log line. What is
//! secret the files say themselves (option `csi_secret`); mount flags, which may hold passwords, are added here.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use protox::prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

const FILES: [&str; 2] = ["csi.proto", "pluginregistration.proto"];

/// Fields without the option that may hold a secret all the same (specification, "Mount flags").
const ALSO_SECRET: [&str; 1] = ["csi.v1.VolumeCapability.MountVolume.mount_flags"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let pool = compiler.descriptor_pool();
    let secretive: Vec<MessageDescriptor> = pool
        .all_messages()
        .filter(|message| message.fields().any(|field| is_secret(&pool, &field)))
        .collect();
    let mut code = String::new();
    for message in &secretive {
        write_debug(&pool, message, &mut code)?;
    }
    let directory = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(directory.join("csi.v1.debug.rs"), code)?;
    tonic_prost_build::configure()
        .skip_debug(secretive.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Whether a field must not be shown.
fn is_secret(pool: &DescriptorPool, field: &FieldDescriptor) -> bool {
    let marked = pool
        .get_extension_by_name("csi.v1.csi_secret")
        .is_some_and(|option| field.options().get_extension(&option).as_bool() == Some(true));
    marked || ALSO_SECRET.contains(&field.full_name())
}

/// Writes `impl Debug` that shows how many values a secret field has, and all other fields.
fn write_debug(pool: &DescriptorPool, message: &MessageDescriptor, code: &mut String) -> std::fmt::Result {
    let path = match message.parent_message() {
        Some(parent) => format!("{}::{}", snake_case(parent.name()), message.name()),
        None => message.name().to_owned(),
    };
    writeln!(code, "impl ::core::fmt::Debug for {path} {{")?;
    writeln!(code, "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{")?;
    writeln!(code, "        f.debug_struct({:?})", message.name())?;
    for field in message.fields() {
        let name = field.name();
        if is_secret(pool, &field) {
            writeln!(
                code,
                "            .field({name:?}, &format_args!(\"({{}} hidden)\", self.{name}.len()))"
            )?;
        } else {
            writeln!(code, "            .field({name:?}, &self.{name})")?;
        }
    }
    writeln!(code, "            .finish()\n    }}\n}}")
}

/// `VolumeCapability` -> `volume_capability`, as the module of nested messages is called.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
