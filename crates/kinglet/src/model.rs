//! A loaded language model: tokenizer, chat template and engine over one compiled graph.

use std::path::Path;
use std::sync::Arc;

use kinglet_cpu::{CpuBackend, LargeOutputs, PackStore, Precision, SessionOptions};
use kinglet_engine::{Engine, EngineConfig};
use kinglet_graph::{Backend, Executable};
use kinglet_models::{DecoderConfig, DecoderOptions, build_decoder};
use kinglet_tensor::{KvType, Metadata, PoolLimits};
use kinglet_text::chat::{Message, RenderOptions};
use kinglet_text::sample::SamplerConfig;
use kinglet_text::tokenizer::Tokenizer;

use crate::chat_prompt::Prompter;
use crate::error::Size;
use crate::files::ModelFiles;
use crate::footprint::{Footprint, PAGE_TOKENS};
use crate::packs::{Keeper, PackFolder, Packs};
use crate::{Error, hardware, vocabulary};

/// Most rows of one run: longer prompts are computed in parts.
const MAX_ROWS: usize = 512;
/// Most rows of one run whose logits are kept.
const MAX_OUTPUTS: usize = 64;
/// Activations, buffers and everything else that is neither weights nor keys and values.
const OVERHEAD: u64 = 80_000_000;

/// What the caller decides about loading. The defaults suit one user on this machine.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Threads; without it, one for each physical core.
    pub threads: Option<usize>,
    /// Instruction set by name (`kinglet device` lists them); without it, the best there is.
    pub isa: Option<String>,
    /// Precision of matrix products.
    pub precision: Precision,
    /// Tokens of prompt and answer; without it, what the model was trained for, or less where memory is short.
    pub context: Option<usize>,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Requests that are computed together.
    pub parallel: usize,
    /// Where packed weights are kept for the next load; without it, they are not.
    pub packs: Option<Packs>,
    /// Memory of graph models.
    pub buffers: Buffers,
    /// Whether a step of a graph model may compute several of its nodes. Without it a plan is slower, and says what fusing is
    /// worth.
    pub fuse: bool,
    /// Which function of a Core ML package runs; without it, its usual one.
    pub function: Option<String>,
}

/// What graph models may do with memory besides their weights and planned activations, and with the disk.
#[derive(Clone, Debug)]
pub struct Buffers {
    /// What the pool may keep while it is idle.
    pub pool: PoolLimits,
    /// Most elements of a value whose size the data decides.
    pub max_elements: usize,
    /// Most rounds of a loop.
    pub max_rounds: u64,
    /// Most elements of a list that a loop carries.
    pub max_list: usize,
    /// Bytes from which on outputs lie in files that other processes can map; without it, none do.
    pub large_outputs: Option<usize>,
    /// Folder in which their packed weights are kept for the next load; without it, they are not.
    pub packs: Option<PackFolder>,
}

impl Default for Buffers {
    fn default() -> Self {
        let large_outputs = Some(LargeOutputs::FROM);
        Self {
            pool: PoolLimits::default(),
            max_elements: SessionOptions::MAX_ELEMENTS,
            max_rounds: SessionOptions::MAX_ROUNDS,
            max_list: SessionOptions::MAX_LIST,
            large_outputs,
            packs: None,
        }
    }
}

impl LoadOptions {
    /// The instruction set that will be used, when bfloat16 is asked for and it does not multiply such numbers: products are
    /// computed in f32 then.
    pub fn without_bf16(&self) -> Option<&'static str> {
        let level = hardware::level(self.isa.as_deref()).ok()?;
        (self.precision == Precision::Bf16 && !level.has_bf16()).then_some(level.name())
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: None,
            isa: None,
            precision: Precision::default(),
            context: None,
            kv_type: KvType::default(),
            parallel: 1,
            packs: None,
            buffers: Buffers::default(),
            fuse: true,
            function: None,
        }
    }
}

/// A language model that answers.
pub struct Model {
    name: String,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    template: Option<String>,
    prompter: Prompter,
    sampler: SamplerConfig,
    engine: Engine,
    vocab: usize,
    _keeper: Option<Arc<Keeper>>,
}

impl Model {
    /// Loads a `.gguf` file or a Hugging Face folder.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let name =
            path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
        Self::from_files(&name, &ModelFiles::open(path)?, options)
    }

    /// Loads opened files.
    pub fn from_files(name: &str, files: &ModelFiles, options: &LoadOptions) -> Result<Self, Error> {
        // Cheap, and the first thing to know: whether this is a model that can run at all.
        files.decoder()?;
        let (tokenizer, compiled) = both(|| vocabulary::tokenizer(files), || Compiled::new(files, options));
        let (tokenizer, compiled) = (tokenizer?, compiled?);
        let config = EngineConfig {
            kv_tokens: compiled.context * options.parallel.max(1),
            ..EngineConfig::new(compiled.context)
        };
        let template = vocabulary::template_source(files);
        let prompter = Prompter::new(&tokenizer, template);
        let engine = Engine::spawn(compiled.executable, tokenizer.clone(), compiled.vocab, config)?;
        Ok(Self {
            name: name.into(),
            config: compiled.config,
            tokenizer,
            template: template.map(str::to_owned),
            prompter,
            sampler: sampler(files),
            engine,
            vocab: compiled.vocab,
            _keeper: compiled.keeper,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Architecture and sizes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The source of its chat template, when it ships one.
    pub fn template_source(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// The tokens of a conversation that an answer continues, by the model's own template.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        self.prompter.conversation(messages, &RenderOptions::default())
    }

    /// The same with everything that templates understand: tools, switches, the time.
    pub fn prompt_with(&self, messages: &[Message], options: &RenderOptions) -> Result<Vec<u32>, Error> {
        self.prompter.conversation(messages, options)
    }

    /// The tokens of plain text, with what the tokenizer puts around texts.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.prompter.text(text)
    }

    /// Sampling that its makers recommend, or the defaults.
    pub fn sampler(&self) -> &SamplerConfig {
        &self.sampler
    }

    /// Values of a row of logits.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The token that texts begin with, when the tokenizer puts one there.
    pub fn bos(&self) -> Option<u32> {
        let first = self.encode("").ok()?.first().copied();
        first.filter(|id| self.tokenizer.special_ids().bos == Some(*id))
    }

    /// The engine that runs it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tokens of prompt and answer that one request may have.
    pub fn context(&self) -> usize {
        self.engine.context()
    }
}

/// A decoder's graph bound to this machine: what engines, benchmarks and `explain` run.
pub struct Compiled {
    /// Sizes and switches.
    pub config: DecoderConfig,
    /// The bound graph.
    pub executable: Box<dyn Executable>,
    /// Tokens of prompt and answer that one sequence may have.
    pub context: usize,
    /// Values of a row of logits.
    pub vocab: usize,
    keeper: Option<Arc<Keeper>>,
}

impl Compiled {
    /// Builds the graph and binds it, after checking that it fits into memory.
    pub fn new(files: &ModelFiles, options: &LoadOptions) -> Result<Self, Error> {
        let config = files.decoder()?;
        let context = context(files, &config, options)?;
        let decoder = DecoderOptions {
            context,
            max_rows: MAX_ROWS.min(context),
            max_outputs: MAX_OUTPUTS,
            kv_type: options.kv_type,
            page_tokens: PAGE_TOKENS,
        };
        let graph = build_decoder(&config, files.weights(), &decoder)?;
        let vocab = graph.outputs().first().and_then(|v| graph.tensor_type(*v)?.cols()).unwrap_or(0);
        let keeper = options.packs.clone().map(|packs| Arc::new(Keeper::new(packs)));
        let packs = keeper.clone().map(|keeper| keeper as Arc<dyn PackStore>);
        let executable = CpuBackend { packs, ..backend(options)? }.compile(graph)?;
        Ok(Self { config, executable, context, vocab, keeper })
    }
}

/// Does two things at once: the second one on this thread.
fn both<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    })
}

/// The CPU as the options want it used.
pub(crate) fn backend(options: &LoadOptions) -> Result<CpuBackend, Error> {
    let threads = options.threads.unwrap_or_else(hardware::cores);
    if threads == 0 || threads > 1024 {
        return Err(Error::Option {
            option: "threads",
            found: threads.to_string(),
            expected: "1 to 1024".into(),
        });
    }
    let level = hardware::level(options.isa.as_deref())?;
    Ok(CpuBackend { threads, level, precision: options.precision, packs: None })
}

/// The context to load with: the one asked for, or as much of the trained one as memory has room for.
fn context(files: &ModelFiles, config: &DecoderConfig, options: &LoadOptions) -> Result<usize, Error> {
    if let Some(asked) = options.context.filter(|asked| *asked == 0 || *asked > config.context) {
        let expected = format!("1 to {}, what the model was trained for", config.context);
        return Err(Error::Option { option: "context", found: asked.to_string(), expected });
    }
    let footprint = Footprint::of(files, config)?;
    let needed = |tokens: usize| {
        let tokens = tokens.saturating_mul(options.parallel.max(1));
        footprint.total(options.kv_type, tokens).map_or(u64::MAX, |bytes| bytes.saturating_add(OVERHEAD))
    };
    let available = hardware::available_memory();
    let context = options.context.unwrap_or_else(|| {
        let halves = std::iter::successors(Some(config.context), |tokens| Some(tokens / 2));
        halves
            .take_while(|tokens| *tokens > PAGE_TOKENS)
            .find(|tokens| needed(*tokens) <= available)
            .unwrap_or(PAGE_TOKENS)
    });
    if needed(context) > available {
        let what = format!("the model with a context of {context} tokens");
        return Err(Error::Memory { what, needed: Size(needed(context)), available: Size(available) });
    }
    Ok(context)
}

/// `generation_config.json`, where there is one.
fn sampler(files: &ModelFiles) -> SamplerConfig {
    let ModelFiles::HuggingFace(folder) = files else { return SamplerConfig::default() };
    let given: &Metadata = &folder.generation;
    let plain = SamplerConfig::default();
    let number = |key: &str, plain: f32| given.f64(key).map_or(plain, |x| x as f32);
    let greedy = given.bool("do_sample") == Some(false);
    SamplerConfig {
        temperature: if greedy { 0.0 } else { number("temperature", plain.temperature) },
        top_p: number("top_p", plain.top_p),
        min_p: number("min_p", plain.min_p),
        top_k: given.usize("top_k").unwrap_or(plain.top_k),
        repetition_penalty: number("repetition_penalty", plain.repetition_penalty),
        ..plain
    }
}
