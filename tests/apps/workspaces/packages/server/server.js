const http = require("http");
const greeting = require("@example/greeting");
const mime = require("mime");

http
  .createServer((request, response) => {
    response.setHeader("Content-Type", mime.lookup("x.json"));
    response.end(JSON.stringify({ ...greeting(), root: require("ms/package.json").version }));
  })
  .listen(process.env.PORT);
