// Runs a Python program on MicroPython's WebAssembly build with some files in its file system.
// Usage: node micropython.mjs <the package's micropython.mjs> <heap in bytes> < {"files": {path: text}, "program": text}
// What the program prints goes to stdout; an exception goes to stderr and makes the exit code 1.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , modulePath, heap] = process.argv;
const { files, program } = JSON.parse(readFileSync(0, "utf8"));
const { loadMicroPython } = await import(pathToFileURL(modulePath));
const micropython = await loadMicroPython({
  heapsize: Number(heap),
  stdout: (line) => console.log(line),
  stderr: (line) => console.error(line),
  linebuffer: true,
});
for (const [path, text] of Object.entries(files)) {
  const parts = path.split("/");
  for (let depth = 1; depth < parts.length; depth++) {
    const folder = "/" + parts.slice(0, depth).join("/");
    if (!micropython.FS.analyzePath(folder).exists) micropython.FS.mkdir(folder);
  }
  micropython.FS.writeFile("/" + path, text);
}
try {
  micropython.runPython("import sys\nsys.path.append('/')\n");
  micropython.runPython(program);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
