//! What the rows of [`super::options`] become.

use super::kind::Word;
use super::options::Settings;
use super::setting::Setting;

/// Prefix of every variable.
pub const PREFIX: &str = "CUDA_ENTRYPOINT_";

/// An option of `run` and `check`.
#[derive(Debug)]
pub struct OptionSpec {
    /// flag without its dashes; the variable is [`PREFIX`] and this in upper case with `_`
    pub flag: &'static str,
    /// what the value is called in the help
    pub value: &'static str,
    /// heading in the help
    pub group: &'static str,
    /// help, one line or more, or none where the words say all
    pub help: &'static str,
    /// the words that the value may be; empty where they cannot be listed
    pub words: &'static [Word],
    /// what the flag without a value stands for; none where it requires one
    pub bare: Option<&'static str>,
    /// default as it would be written; empty for none
    pub default: fn() -> String,
    /// where its settings are kept
    pub(super) slot: fn(&mut Settings) -> &mut Vec<Setting>,
}

impl OptionSpec {
    /// The variable without [`PREFIX`], such as `DEVICE_TIMEOUT`.
    pub fn variable(&self) -> String {
        self.flag.to_ascii_uppercase().replace('-', "_")
    }

    /// As a usage line has it: `--mode MODE`, `--init[=TARGET]`.
    pub fn usage(&self) -> String {
        match self.bare {
            Some(_) => format!("--{}[={}]", self.flag, self.value),
            None => format!("--{} {}", self.flag, self.value),
        }
    }
}

/// The flag of a field: that of `device_timeout` is `device-timeout`.
pub(super) const fn flag_of<const LENGTH: usize>(field: &str) -> [u8; LENGTH] {
    let mut flag = [b'-'; LENGTH];
    let mut at = 0;
    while at < LENGTH {
        if field.as_bytes()[at] != b'_' {
            flag[at] = field.as_bytes()[at];
        }
        at += 1;
    }
    flag
}

/// Makes of the rows [`Settings`], [`super::options::Config`], and the tables that parser and help go through. A row
/// without a default may be given more than once, and has no field in the configuration.
macro_rules! options {
    ($($group:literal { $(
        $field:ident: $kind:ty $(= $default:expr)?, $value:literal, $help:literal;
    )* })*) => {
        /// All settings as written: what a flag says comes after what a variable says, so that the last one counts.
        /// The method by the name of a field is the value of the one that counts, or the default.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct Settings {
            $($(
                #[doc = concat!("`", stringify!($field), "` as written")]
                pub $field: Vec<Setting>,
            )*)*
        }

        /// All settings of `run` and `check`.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Config {
            $($($(
                #[doc = concat!("default: `", stringify!($default), "`")]
                pub $field: <$kind as Kind>::Value,
            )?)*)*
            /// severities of single findings
            pub overrides: Overrides,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($($($field: $default,)?)*)*
                    overrides: Overrides::default(),
                }
            }
        }

        impl Settings {
            $($($(
                #[doc = concat!("The value of `", stringify!($field), "`, by default `", stringify!($default), "`.")]
                ///
                /// # Errors
                /// Its value is invalid.
                pub fn $field(&self) -> Result<<$kind as Kind>::Value, SettingError> {
                    read_or::<$kind>(&self.$field, || $default)
                }
            )?)*)*

            /// Each value by itself.
            pub(super) fn values(&self) -> Result<Config, SettingError> {
                Ok(Config {
                    $($($($field: read_or::<$kind>(&self.$field, || $default)?,)?)*)*
                    overrides: Overrides::default(),
                })
            }
        }

        /// Every option by name.
        #[derive(Debug)]
        pub struct Options {
            $($(
                #[doc = concat!("`", stringify!($field), "`")]
                pub $field: OptionSpec,
            )*)*
        }

        /// Every option by name, as [`OPTIONS`] has them in order.
        pub static OPTION: Options = Options {
            $($($field: OptionSpec {
                flag: {
                    const FIELD: &str = stringify!($field);
                    const FLAG: &[u8] = &flag_of::<{ FIELD.len() }>(FIELD);
                    match std::str::from_utf8(FLAG) {
                        Ok(flag) => flag,
                        Err(_) => FIELD,
                    }
                },
                value: $value,
                group: $group,
                help: $help,
                words: <$kind as Kind>::WORDS,
                bare: <$kind as Kind>::BARE,
                default: || {
                    #[allow(unused_mut, unused_assignments)]
                    let mut text = String::new();
                    $(text = <$kind as Kind>::show(&$default);)?
                    text
                },
                slot: |settings| &mut settings.$field,
            },)*)*
        };

        /// All options, in the order of the help.
        pub const OPTIONS: &[&OptionSpec] = &[$($(&OPTION.$field),*),*];
    };
}
pub(super) use options;
