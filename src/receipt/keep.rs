//! What a start found out, put into the receipt for the next one.

use std::path::PathBuf;

use super::device::{DeviceBasis, DevicePart, SmokePart};
use super::file::{self, NotWritten, Receipt};
use super::image::{self, ImageKey, ImagePart, passing_trouble};
use super::key::Texts;
use super::own::UserCommands;
use super::{Now, Part, Written, device};
use crate::discover::{libraries, loader};
use crate::facts::smoke::SmokeFacts;
use crate::facts::{DeviceFacts, ImageFacts};
use crate::stack::Stack;

/// What is to be kept. Everything in it passed.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// the receipt
    pub path: PathBuf,
    /// this moment
    pub now: Now,
    /// the image, whether or not it is to be written: the smoke rests on it
    pub image: Established<ImageFacts>,
    /// driver and GPUs
    pub device: Option<Established<DeviceFacts>>,
    /// the smoke that ran now, and the options of its interpreter
    pub smoke: Option<(SmokeFacts, Vec<String>)>,
    /// the manifest's own commands, which that smoke ran
    pub own: UserCommands,
    /// the manifest
    pub stack: Stack,
}

/// Facts, and what they were found under.
#[derive(Clone, Debug)]
pub struct Established<F> {
    /// manifest, list, severities, variables
    pub in_force: Texts,
    /// the facts
    pub facts: F,
    /// found out by this start, and not taken from a receipt
    pub is_new: bool,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteOutcome {
    /// what is in the file now
    pub written: Vec<Part>,
    /// what passed and cannot be recognised later, and why
    pub left_out: Vec<String>,
    /// why nothing is in the file
    pub problem: Option<NotWritten>,
}

impl WriteRequest {
    /// Looks at what the facts rest on, and writes. Not for the main thread: a file system may hang.
    pub fn save(self) -> WriteOutcome {
        let mut kept = WriteOutcome::default();
        let before = file::read(&self.path).ok().flatten().unwrap_or_default();
        let image = self.image_part(&mut kept);
        let state = || match &image {
            Some(part) => Some(part.key.digest()),
            None => self.state_of(before.image.as_ref()),
        };
        let smoke = self.smoke.as_ref().and_then(|(facts, options)| {
            let Some(image) = state() else {
                kept.left_out
                    .push("the smoke, since the image it ran in is not in the receipt".to_string());
                return None;
            };
            Some(SmokePart {
                written: self.now.written(),
                image: self.own.state(&image, &self.image.facts),
                options: options.clone(),
                facts: facts.clone(),
            })
        });
        let device = self.device_part(&before, smoke, &mut kept);
        kept.written.extend(image.is_some().then_some(Part::Image));
        if let Some(part) = &device {
            kept.written.push(Part::Device);
            kept.written.extend(part.smoke.is_some().then_some(Part::Smoke));
        }
        if kept.written.is_empty() {
            return kept;
        }
        if let Err(problem) = file::write(&self.path, image, device) {
            kept.written.clear();
            kept.problem = Some(problem);
        }
        kept
    }

    fn image_part(&self, kept: &mut WriteOutcome) -> Option<ImagePart> {
        if !self.image.is_new {
            return None;
        }
        let facts = image::CachedFacts::of(&self.image.facts);
        let unread = self.image.facts.unread.first();
        let unread = unread.map(|unread| format!("{} could not be read", unread.path));
        let key = match unread.or_else(|| passing_trouble(&facts)) {
            Some(trouble) => Err(trouble),
            None => self.image_key(&facts),
        };
        match key {
            Ok(key) => Some(ImagePart {
                written: self.now.written(),
                key,
                facts,
            }),
            Err(trouble) => {
                kept.left_out.push(format!("the image: {trouble}"));
                None
            }
        }
    }

    fn image_key(&self, facts: &image::CachedFacts) -> Result<ImageKey, String> {
        let python = &self.image.facts.python;
        let copies = libraries::of_environment(&self.stack, python);
        let named = &self.image.facts.named_libraries;
        let asked = image::asked(&copies, &loader::ask(&self.stack, python, named), named);
        ImageKey::of(self.image.in_force.clone(), asked, facts, python)
    }

    /// The state of the image as the receipt has it, if that is the present one.
    fn state_of(&self, part: Option<&ImagePart>) -> Option<String> {
        let now = self
            .image_key(&image::CachedFacts::of(&self.image.facts))
            .ok()?
            .digest();
        part.map(|part| part.key.digest()).filter(|then| *then == now)
    }

    fn device_part(
        &self,
        before: &Receipt,
        smoke: Option<SmokePart>,
        kept: &mut WriteOutcome,
    ) -> Option<DevicePart> {
        let found = self.device.as_ref()?;
        if !found.is_new && smoke.is_none() {
            return None;
        }
        let basis = DeviceBasis::look(&found.in_force);
        match device::key(found.in_force.clone(), &self.now, &found.facts, basis) {
            Ok(key) => Some(DevicePart {
                written: if found.is_new {
                    self.now.written()
                } else {
                    self.proven_at(before)
                },
                key,
                driver: found.facts.driver.clone().unwrap_or_default(),
                devices: found.facts.devices.clone(),
                smoke,
            }),
            Err(why) => {
                kept.left_out.push(format!("the GPUs: {why}"));
                None
            }
        }
    }

    /// A smoke that is added does not make the driver's answers any younger.
    fn proven_at(&self, before: &Receipt) -> Written {
        let known = before.device.as_ref().zip(self.device.as_ref());
        let known = known.and_then(|(part, found)| part.recognise(&found.facts).ok());
        known.map_or(Written::default(), |known| known.written)
    }
}
