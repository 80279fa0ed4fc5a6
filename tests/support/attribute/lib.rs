//! The `#[test]` of the integration tests. It registers a function with `support::harness`, which can tell "not run"
//! from "passed" at run time; the built-in attribute's harness cannot.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Registers a function without arguments as a test. `#[ignore]` behind it means: only where `--ignored` asks for it.
#[proc_macro_attribute]
pub fn test(_: TokenStream, function: TokenStream) -> TokenStream {
    let mut kept = TokenStream::new();
    let mut ignored = false;
    let mut name = None;
    let mut tokens = function.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if let TokenTree::Punct(punct) = &token
            && punct.as_char() == '#'
            && tokens.peek().is_some_and(is_ignore)
        {
            // The compiler refuses it on a function that is no test of its own harness.
            tokens.next();
            ignored = true;
            continue;
        }
        if let TokenTree::Ident(word) = &token
            && word.to_string() == "fn"
            && let Some(TokenTree::Ident(identifier)) = tokens.peek()
        {
            name.get_or_insert_with(|| identifier.to_string());
        }
        kept.extend([token]);
    }
    let Some(name) = name else {
        return "compile_error!(\"this attribute stands before a function\");"
            .parse()
            .unwrap_or_default();
    };
    let registration = format!(
        "::inventory::submit! {{ crate::support::harness::Test {{ \
         module: module_path!(), name: \"{name}\", run: {name}, ignored: {ignored} }} }}"
    );
    kept.extend(registration.parse::<TokenStream>());
    kept
}

/// Whether this is the bracket of `#[ignore]` or `#[ignore = "reason"]`.
fn is_ignore(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else {
        return false;
    };
    group.delimiter() == Delimiter::Bracket
        && matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(word)) if word.to_string() == "ignore")
}
