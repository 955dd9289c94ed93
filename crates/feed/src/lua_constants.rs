//! Reads constants of Lua scripts, for tests that compare them with those of Rust.

/// Returns the number that a script gives to a name, in a line such as `local FILED, READ = 1, 2`.
///
/// # Panics
/// If the script gives no number to the name.
pub(crate) fn lua_number(script: &str, name: &str) -> i64 {
    let declarations = script.lines().filter_map(|line| line.strip_prefix("local ")?.split_once(" = "));
    let mut numbers = declarations.filter_map(|(names, values)| {
        let at = names.split(", ").position(|declared| declared == name)?;
        values.split(", ").nth(at)?.parse().ok()
    });
    numbers.next().unwrap_or_else(|| panic!("the script gives no number to {name}"))
}
