const Koa = require("web");
const { nanoid } = require("nanoid");

const app = new Koa();
app.use((context) => {
  context.body = { greeting: process.env.GREETING, length: nanoid().length };
});
app.listen(process.env.PORT);
