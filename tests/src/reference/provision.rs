//! Volumes: made, removed, listed, grown, changed.

use std::fs::File;

use async_trait::async_trait;
use volume::{
    Capacity, Fault, FaultKind, Form, Grow, Modify, NewVolume, OptionMap, Page, PageRequest, Provision,
    Secrets, Segments, Severity, SizeRange, Source, StoredVolume, TellCapacity, Trouble,
};

use super::state::{State, Volume};
use super::{Inner, Reference, copy_image, device, failed, not_found, state};

/// Sizes are multiples of it.
const GRAIN: u64 = 1 << 20;

/// Size of a volume for which none is asked. XFS has no smaller ones.
const USUAL: u64 = 300 << 20;

/// The largest volume.
const LARGEST: u64 = 1 << 40;

/// Parameters that a StorageClass may have.
const PARAMETERS: [&str; 1] = ["pool"];

/// Parameters that a VolumeAttributesClass may have; their values are numbers.
const MUTABLE: [&str; 2] = ["iops", "throughput"];

#[async_trait]
impl Provision for Reference {
    async fn create(&self, wanted: &NewVolume, secrets: &Secrets) -> Result<StoredVolume, Fault> {
        self.admit("create", &wanted.name, secrets)?;
        let wanted = wanted.clone();
        self.change(move |inner, state| create(inner, state, &wanted)).await
    }

    async fn delete(&self, id: &str, secrets: &Secrets) -> Result<(), Fault> {
        self.admit("delete", id, secrets)?;
        let id = id.to_owned();
        let delete = move |inner: &Inner, state: &mut State| {
            let Some(volume) = state.volumes.get(&id) else { return Ok(()) };
            let attached = device::loop_of(&inner.image(&id))?.is_some();
            if attached || !volume.published.is_empty() {
                let detail = "it is published to a node or mounted there";
                return Err(Fault::new(FaultKind::InUse, "delete", id, detail));
            }
            state.volumes.remove(&id);
            match std::fs::remove_file(inner.image(&id)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("delete", error)),
                _ => Ok(()),
            }
        };
        self.change(delete).await
    }

    async fn volume(&self, id: &str) -> Result<StoredVolume, Fault> {
        let id = id.to_owned();
        self.change(move |inner, state| state.volume("look at", &id).map(|volume| stored(inner, &id, volume)))
            .await
    }

    async fn volumes(&self, request: &PageRequest) -> Result<Page<StoredVolume>, Fault> {
        let request = request.clone();
        let list = move |inner: &Inner, state: &mut State| {
            let all = state.volumes.iter().map(|(id, volume)| (id.clone(), stored(inner, id, volume)));
            state::page(all.collect(), &request, state.newest)
        };
        self.change(list).await
    }

    async fn check(&self, id: &str, forms: &[Form], parameters: &OptionMap) -> Result<(), Fault> {
        let (id, forms, parameters) = (id.to_owned(), forms.to_vec(), parameters.clone());
        let check = move |_: &Inner, state: &mut State| {
            let volume = state.volume("check", &id)?;
            known("check", &parameters, &PARAMETERS)?;
            if is_block("check", &forms)? != volume.block {
                let detail = "a volume is a device or has a file system for all its life";
                return Err(Fault::new(FaultKind::InvalidArgument, "check", id, detail));
            }
            Ok(())
        };
        self.change(check).await
    }
}

#[async_trait]
impl TellCapacity for Reference {
    async fn capacity(&self, parameters: &OptionMap, place: Option<&Segments>) -> Result<Capacity, Fault> {
        known("tell the capacity of", parameters, &PARAMETERS)?;
        let here = place.is_none_or(|place| *place == self.inner.config.place);
        self.change(move |inner, state| {
            let available = if here { room(inner, state) } else { 0 };
            Ok(Capacity { available, largest: Some(LARGEST), smallest: Some(GRAIN) })
        })
        .await
    }
}

#[async_trait]
impl Grow for Reference {
    async fn grow(&self, id: &str, size: SizeRange, secrets: &Secrets) -> Result<(u64, bool), Fault> {
        self.admit("grow", id, secrets)?;
        let id = id.to_owned();
        let grow = move |inner: &Inner, state: &mut State| {
            let now = state.volume("grow", &id)?.size;
            let wanted = rounded(size, now).filter(|wanted| *wanted <= LARGEST);
            let wanted = wanted.ok_or_else(|| {
                let detail = format!("it has {now} bytes and cannot have a size in that range");
                Fault::new(FaultKind::OutOfRange, "grow", &id, detail)
            })?;
            if wanted - now > room(inner, state) {
                return Err(Fault::new(FaultKind::ResourceExhausted, "grow", &id, "there is no room"));
            }
            let image = File::options().write(true).open(inner.image(&id));
            image.and_then(|image| image.set_len(wanted)).map_err(|error| failed("grow", error))?;
            state.volume_mut("grow", &id)?.size = wanted;
            // Also of one that is used nowhere: what formats or attaches it next knows no other sign.
            Ok((wanted, true))
        };
        self.change(grow).await
    }
}

#[async_trait]
impl Modify for Reference {
    async fn modify(&self, id: &str, parameters: &OptionMap, secrets: &Secrets) -> Result<(), Fault> {
        self.admit("modify", id, secrets)?;
        let (id, parameters) = (id.to_owned(), parameters.clone());
        self.change(move |_, state| {
            let volume = state.volume_mut("modify", &id)?;
            numbers("modify", &parameters)?;
            volume.mutable.extend(parameters);
            Ok(())
        })
        .await
    }
}

fn create(inner: &Inner, state: &mut State, wanted: &NewVolume) -> Result<StoredVolume, Fault> {
    let fault = |kind, detail: &str| Fault::new(kind, "create", &wanted.name, detail);
    known("create", &wanted.parameters, &PARAMETERS)?;
    numbers("create", &wanted.mutable_parameters)?;
    let block = is_block("create", &wanted.forms)?;
    if let Some((id, there)) = state.volumes.iter().find(|(_, volume)| volume.name == wanted.name) {
        let same = wanted.size.contains(there.size)
            && there.parameters == wanted.parameters
            && there.source == wanted.source
            && there.block == block;
        if !same {
            return Err(fault(FaultKind::AlreadyExists, "the name is taken by a volume that differs"));
        }
        return Ok(stored(inner, id, there));
    }
    if !wanted.places.is_empty() && !wanted.places.contains(&inner.config.place) {
        return Err(fault(FaultKind::ResourceExhausted, "the storage is in none of the places asked for"));
    }
    let origin = match &wanted.source {
        None => None,
        Some(Source::Snapshot(id)) => {
            let snapshot = state.snapshots.get(id).ok_or_else(|| not_found("copy", "snapshot", id))?;
            Some((inner.copy(id), snapshot.size))
        }
        Some(Source::Volume(id)) => {
            let volume = state.volumes.get(id).ok_or_else(|| not_found("copy", "volume", id))?;
            Some((inner.image(id), volume.size))
        }
    };
    let least = origin.as_ref().map_or(0, |(_, size)| *size);
    let usual = SizeRange { required: wanted.size.required.or(Some(least.max(USUAL))), ..wanted.size };
    let size = rounded(usual, least.max(GRAIN)).filter(|size| *size <= LARGEST);
    let size = size.ok_or_else(|| fault(FaultKind::OutOfRange, "no volume can have a size in that range"))?;
    if size > room(inner, state) {
        return Err(fault(FaultKind::ResourceExhausted, "there is no room for it"));
    }
    let id = state.new_id("vol");
    let image = inner.image(&id);
    if let Some((origin, _)) = &origin {
        copy_image(origin, &image)?;
    }
    let file = File::options().write(true).create(true).truncate(false).open(&image);
    file.and_then(|file| file.set_len(size)).map_err(|error| failed("create", error))?;
    let volume = Volume {
        name: wanted.name.clone(),
        size,
        block,
        parameters: wanted.parameters.clone(),
        mutable: wanted.mutable_parameters.clone(),
        source: wanted.source.clone(),
        published: Default::default(),
    };
    let answer = stored(inner, &id, &volume);
    state.volumes.insert(id, volume);
    Ok(answer)
}

/// The smallest multiple of the grain that is in the range and at least `least`.
fn rounded(size: SizeRange, least: u64) -> Option<u64> {
    let wanted = size.required.unwrap_or(0).max(least).checked_next_multiple_of(GRAIN)?;
    size.limit.is_none_or(|limit| wanted <= limit).then_some(wanted)
}

fn room(inner: &Inner, state: &State) -> u64 {
    let taken: u64 = state.volumes.values().map(|volume| volume.size).sum();
    inner.config.room.saturating_sub(taken)
}

/// Whether all forms are devices; a mixture is refused.
fn is_block(op: &str, forms: &[Form]) -> Result<bool, Fault> {
    let devices = forms.iter().filter(|form| matches!(form, Form::Block)).count();
    if devices != 0 && devices != forms.len() {
        let detail = "a volume is a device or has a file system, not both";
        return Err(Fault::new(FaultKind::InvalidArgument, op, "volume_capabilities", detail));
    }
    Ok(devices != 0)
}

fn known(op: &str, parameters: &OptionMap, known: &[&str]) -> Result<(), Fault> {
    match parameters.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let detail = format!("unknown parameter; known: {}", known.join(", "));
            Err(Fault::new(FaultKind::InvalidArgument, op, key, detail))
        }
    }
}

fn numbers(op: &str, parameters: &OptionMap) -> Result<(), Fault> {
    known(op, parameters, &MUTABLE)?;
    match parameters.iter().find(|(_, value)| value.parse::<u32>().is_err()) {
        None => Ok(()),
        Some((key, _)) => Err(Fault::new(FaultKind::InvalidArgument, op, key, "the value is no number")),
    }
}

fn stored(inner: &Inner, id: &str, volume: &Volume) -> StoredVolume {
    let there = inner.image(id).is_file();
    let lost = || Trouble { severity: Severity::DataLoss, detail: "its image file is gone".to_owned() };
    StoredVolume {
        id: id.to_owned(),
        size: volume.size,
        context: volume.parameters.clone(),
        source: volume.source.clone(),
        places: inner.places(),
        nodes: volume.published.keys().cloned().collect(),
        trouble: (!there).then(lost),
    }
}
