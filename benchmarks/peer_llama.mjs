// llama.cpp through the package node-llama-cpp, whose prebuilt code is chosen for the processor. A program of
// benchmarks/peers.py, which speaks to it as to those of benchmarks/peer_programs.py:
//
//     node benchmarks/peer_llama.mjs MODULES FILE.gguf THREADS
import path from "node:path";
import {createInterface} from "node:readline";

const [modules, file, threads] = process.argv.slice(2);
const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");
const slots = 16;

async function load() {
    const {getLlama, LlamaLogLevel} = await import(path.resolve(modules, "node-llama-cpp/dist/index.js"));
    const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads), logLevel: LlamaLogLevel.error});
    console.error(llama.systemInfo);
    const model = await llama.loadModel({modelPath: file, gpuLayers: 0});
    const cache = path.basename(file) === "F32.gguf" ? "F32" : "F16";
    const context = await model.createContext({
        sequences: slots, contextSize: 1536, batchSize: 2048, threads: Number(threads),
        experimentalKvCacheKeyType: cache, experimentalKvCacheValueType: cache
    });
    return Array.from({length: slots}, () => context.getSequence());
}

async function write(sequence, prompt, count) {
    await sequence.clearHistory();
    const tokens = [];
    // A step evaluates the token before: the last one is not fed, as with the others.
    for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
        tokens.push(token);
        if (tokens.length === count)
            break;
    }
    return tokens;
}

let sequences;
try {
    sequences = await load();
    say({ready: true});
} catch (error) {
    say({absent: String(error.message ?? error).split("\n")[0]});
    process.exit(0);
}
const used = () => sequences.reduce((sum, sequence) => sum + sequence.tokenMeter.usedInputTokens, 0);
for await (const line of createInterface({input: process.stdin})) {
    const {prompts, new: count, warm} = JSON.parse(line);
    const given = warm ? prompts.map((prompt) => prompt.slice(0, 64)) : prompts;
    const [before, cpu, start] = [used(), process.cpuUsage(), performance.now()];
    const tokens = await Promise.all(given.map((prompt, i) => write(sequences[i], prompt, warm ? 2 : count)));
    const wall = (performance.now() - start) / 1e3;
    const spent = process.cpuUsage(cpu);
    say({tokens, prefilled: used() - before, wall, cpu: (spent.user + spent.system) / 1e6});
}
process.exit(0);
