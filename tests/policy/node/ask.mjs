// Asks Casbin for Node: reads cases as JSON from standard input, prints its answers as JSON.
//
// A case is a model, the lines of p, g and g2, and requests; its answer is a list of booleans.
import { newEnforcer, newModelFromString } from "casbin";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const answers = [];
for (const { model, lines, requests } of JSON.parse(Buffer.concat(chunks))) {
  const enforcer = await newEnforcer(newModelFromString(model));
  await enforcer.addPolicies(lines.p);
  if (lines.g.length) await enforcer.addNamedGroupingPolicies("g", lines.g);
  await enforcer.addNamedGroupingPolicies("g2", lines.g2);
  answers.push(await Promise.all(requests.map((request) => enforcer.enforce(...request))));
}
process.stdout.write(JSON.stringify(answers));
