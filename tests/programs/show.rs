//! A program for images: shows how it was started. With the argument `exit N`, exits so.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    println!("arguments {arguments:?}");
    println!("directory {}", std::env::current_dir().unwrap().display());
    for (name, value) in std::env::vars() {
        println!("{name}={value}");
    }
    if let [_, .., last, code] = arguments.as_slice() {
        if last == "exit" {
            std::process::exit(code.parse().unwrap());
        }
    }
}
