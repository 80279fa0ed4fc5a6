//! `--smoke`: one way to run the smoke, and whether the native proof comes before it.

use std::ffi::OsStr;

use crate::facts::native::NativeExtent;

use super::kind::{Kind, Word, Wrong};
use super::options::SmokeMode;

/// What `--smoke` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmokeChoice {
    /// how the manifest's entries run; [`SmokeMode::Native`] where only the native proof is asked for
    pub mode: SmokeMode,
    /// the native proof, which comes first
    pub native: Option<NativeExtent>,
}

impl Default for SmokeChoice {
    fn default() -> Self {
        Self {
            mode: SmokeMode::Separate,
            native: None,
        }
    }
}

/// `native=all`, beside the words of [`SmokeMode`].
const ALL: &str = "native=all";

impl Kind for SmokeChoice {
    type Value = Self;
    const WORDS: &'static [Word] = &[
        SmokeMode::Separate.word(),
        SmokeMode::Handoff.word(),
        SmokeMode::Native.word(),
        Word {
            name: ALL,
            help: "the same, with every kernel of large libraries, of which native loads a sample",
        },
        SmokeMode::Off.word(),
    ];

    fn parse(text: &OsStr) -> Result<Self, Wrong> {
        let (mut mode, mut native) = (None, None);
        let all = text.to_string_lossy();
        for word in all.split(',').map(str::trim) {
            let repeated = match (word, SmokeMode::parse(OsStr::new(word))) {
                (ALL, _) => native.replace(NativeExtent::All).is_some(),
                (_, Ok(SmokeMode::Native)) => native.replace(NativeExtent::Sample).is_some(),
                (_, Ok(other)) => mode.replace(other).is_some(),
                (_, Err(_)) => return Err(Wrong::word(OsStr::new(word), Self::WORDS)),
            };
            if repeated {
                return Err(Wrong::new(
                    "it names two ways to run the smoke",
                    "combine `native` or `native=all` with one of `separate` and `handoff`",
                ));
            }
        }
        if native.is_some() && mode == Some(SmokeMode::Off) {
            return Err(Wrong::new(
                "`off` runs nothing",
                "leave out `off`, or use it alone",
            ));
        }
        Ok(Self {
            mode: mode.unwrap_or(SmokeMode::Native),
            native,
        })
    }

    fn show(value: &Self) -> String {
        value.mode.name().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(SmokeMode, Option<NativeExtent>)> {
        let choice = SmokeChoice::parse(OsStr::new(text)).ok()?;
        Some((choice.mode, choice.native))
    }

    #[test]
    fn native_stands_alone_or_beside_one_other_way() {
        let sample = Some(NativeExtent::Sample);
        assert_eq!(parse("separate"), Some((SmokeMode::Separate, None)));
        assert_eq!(parse("off"), Some((SmokeMode::Off, None)));
        assert_eq!(parse("native"), Some((SmokeMode::Native, sample)));
        assert_eq!(
            parse("native=all"),
            Some((SmokeMode::Native, Some(NativeExtent::All)))
        );
        assert_eq!(parse("native,handoff"), Some((SmokeMode::Handoff, sample)));
        assert_eq!(parse("separate, native"), Some((SmokeMode::Separate, sample)));
        for wrong in [
            "",
            "native,",
            "native,native=all",
            "separate,handoff",
            "native,off",
            "nativ",
            "native=some",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
