fn main() {
    println!("cargo::rustc-link-arg-bins=-T{}", std::env::var("DEP_QUARRY_LINKER_SCRIPT").unwrap());
}
